// Colours in OKLab, as in src/patchprism/prism/oklab.py: the same sums in the same order, which give the same bytes.

const FROM_CONES = [
  [4.076741661347994, -3.3077115904081933, 0.2309699287294279],
  [-1.2684380040921763, 2.6097574006633715, -0.3413193963102196],
  [-0.004196086541837079, -0.7034186144594495, 1.7076147009309446],
];
const FROM_LAB = [
  [0.9999999984505197, 0.3963377921737678, 0.21580375806075877],
  [1.0000000088817607, -0.10556134232365633, -0.0638541747717059],
  [1.0000000546724108, -0.08948418209496574, -1.2914855378640917],
];
const CENTER = [0.6, 0.05, -0.01];
const SIDE = 0.205;

// _power_5_12: square roots, and a cube root by Halley's method, because Math.pow differs between engines.
function power512(value) {
  let root = 0.3 + 0.7 * value;
  for (let n = 0; n < 5; n++) {
    const cube = root * root * root;
    root = (root * (cube + 2 * value)) / (2 * cube + value);
  }
  return Math.sqrt(Math.sqrt(value)) * Math.sqrt(root);
}

function gammaCoded(linear) {
  const clipped = Math.min(Math.max(linear, 0), 1);
  return clipped <= 0.0031308 ? 12.92 * clipped : 1.055 * power512(clipped) - 0.055;
}

// fill_cube: changes the three float32 values in [0, 1] at `at` in place.
export function fillCube(values, at) {
  const light = SIDE * (values[at] - 0.5) + CENTER[0];
  const a = SIDE * (values[at + 1] - 0.5) + CENTER[1];
  const b = SIDE * (values[at + 2] - 0.5) + CENTER[2];
  const [x, y, z] = FROM_LAB.map((row) => {
    const root = row[0] * light + row[1] * a + row[2] * b;
    return root * root * root;
  });
  for (let c = 0; c < 3; c++) values[at + c] = gammaCoded(FROM_CONES[c][0] * x + FROM_CONES[c][1] * y + FROM_CONES[c][2] * z);
}
