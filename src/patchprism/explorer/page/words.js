// Hints and errors name the parameters of the library; the page names its own controls instead.

export const METHODS = {
  auto: "Auto", object: "Unlike the borders", pca: "First component", above: "Component, high", below: "Component, low", none: "Keep everything",
  mask: "From masks or a head",
};
const KEEP = { above: "high", below: "low", none: "everything" };
const ADVICE = /(?<![\w/.?&=\\-])([a-z]+(?:_[a-z]+)*)=('[^']*'|\([^()]*\))/g;

// Replaces parameters such as "foreground='none'" by the control that sets them, or by the flag of the command if there is no
// control. served: whether the page can fit again.
export function inControls(text, served) {
  return text.replace(ADVICE, (_, name, quoted) => {
    const value = quoted.startsWith("'") ? quoted.slice(1, -1) : quoted.slice(1, -1).replaceAll(" ", "");
    if (name === "foreground" && served && METHODS[value]) return `the method “${METHODS[value]}”`;
    if (name === "foreground" && KEEP[value]) return `“Keep: ${KEEP[value]}”`;
    return `the option --${name.replaceAll("_", "-")} ${value}`;
  });
}

// An error as a sentence of the page. Names of files and models at the beginning stay as they are.
export function asSentence(text) {
  const said = inControls(text, true);
  if (!/^[a-z]+ /.test(said)) return said;
  return said[0].toUpperCase() + said.slice(1) + (/[.!?]$/.test(said) ? "" : ".");
}
