// Requests of the served page to its server. A single file does not use this.

import { DECISION_GRID } from "./head.js";
import { asSentence } from "./words.js";

const STORED = "patchprism-session";

export class Server {
  constructor() {
    this.base = `${location.pathname.replace(/\/$/, "")}/api`;
  }

  async ask(method, path, { json, body, headers = {} } = {}) {
    const options = { method, headers: { ...headers }, cache: "no-store", credentials: "omit" };
    if (json !== undefined) {
      options.headers["Content-Type"] = "application/json";
      options.body = JSON.stringify(json);
    } else if (body !== undefined) options.body = body;
    let response;
    try {
      response = await fetch(this.base + path, options);
    } catch {
      throw new Error("The server does not answer. Is patchprism explore still running?");
    }
    if (response.ok) return response;
    let reason = `The server answered ${response.status}.`;
    try {
      reason = (await response.json()).error ?? reason;
    } catch {
      // the answer is not JSON, so only its status is known
    }
    throw Object.assign(new Error(asSentence(reason)), { status: response.status });
  }

  async json(method, path, options) {
    return (await this.ask(method, path, options)).json();
  }

  // Opens a session. Each tab has its own session, and keeps it when the page is reloaded. like: the session of another tab,
  // from a link, whose fit is shown.
  async open(like) {
    this.limits = await this.json("GET", "/limits");
    if (like) {
      try {
        this.session = (await this.json("POST", `/sessions?like=${encodeURIComponent(like)}`)).session;
        sessionStorage.setItem(STORED, this.session);
        return;
      } catch (error) {
        if (error.status !== 404) throw error; // the session of that tab has ended, so the first view is shown
      }
    }
    const known = sessionStorage.getItem(STORED);
    if (known) {
      try {
        await this.json("GET", `/sessions/${known}`);
        this.session = known;
        return;
      } catch (error) {
        if (error.status !== 404) throw error;
      }
    }
    this.session = (await this.json("POST", "/sessions")).session;
    sessionStorage.setItem(STORED, this.session);
  }

  get path() {
    return `/sessions/${this.session}`;
  }

  // The message of the fit that the session shows. Sets `fitNumber`, the number of this fit, and `rootNumber`, the number of
  // the fit that its colours are turned to agree with.
  async message() {
    this.hasAttention = (await this.json("GET", this.path)).attention;
    const response = await this.ask("GET", `${this.path}/message`);
    this.fitNumber = Number(response.headers.get("x-fit"));
    this.rootNumber = Number(response.headers.get("x-root"));
    return new Uint8Array(await response.arrayBuffer());
  }

  // The message of another fit that the server keeps.
  async messageOf(fit) {
    return new Uint8Array(await (await this.ask("GET", `${this.path}/message?fit=${fit}`)).arrayBuffer());
  }

  // The turn of a fit's colours to agree with those of another fit; null if there is none.
  turn(fit, other) {
    return this.json("GET", `${this.path}/turns/${fit}/${other}`);
  }

  // Goes back to a fit that the server keeps.
  back(fit) {
    return this.json("POST", `${this.path}/fits/${fit}`);
  }

  async upload(file) {
    if (file.size > this.limits.bytes) {
      throw new Error(`${file.name}: is larger than ${Math.round(this.limits.bytes / 1e6)} MB`);
    }
    const answer = await this.json("POST", `${this.path}/photos`, {
      body: file,
      headers: { "Content-Type": "application/octet-stream", "X-Photo-Name": encodeURIComponent(file.name) },
    });
    if (answer.refused) throw new Error(asSentence(answer.refused));
    return answer;
  }

  // Starts a fit and waits for it. Calls tell({ state, stage, done, total }) meanwhile.
  async fit(request, tell) {
    await this.json("POST", `${this.path}/fit`, { json: request });
    return this.follow(tell);
  }

  async follow(tell) {
    for (let wait = 60; ; wait = Math.min(wait * 1.3, 500)) {
      const job = await this.json("GET", `${this.path}/job`);
      tell(job);
      if (job.state === "done") return job;
      if (job.state === "stopped") throw new Error("Stopped.");
      if (job.state === "failed") throw new Error(asSentence(job.error));
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  stop() {
    return this.json("DELETE", `${this.path}/job`);
  }

  save(request) {
    return this.json("POST", `${this.path}/save`, { json: request });
  }

  // Fits a head to { classes, marks, C }. Returns { head: its file, decisions (n, K), score (n), classes (n) }.
  async teach(request) {
    return headAnswer(await this.ask("POST", `${this.path}/head`, { json: request }), request.classes.length);
  }

  // Applies the file of a head with K classes; returns the same.
  async applyHead(bytes, K) {
    const headers = { "Content-Type": "application/octet-stream" };
    return headAnswer(await this.ask("POST", `${this.path}/head/apply`, { body: bytes, headers }), K);
  }

  // Clusters of all patches: { labels (n), count, silhouette }.
  async clusters(count) {
    const { info, content } = await this.packed(`/clusters?count=${count}`);
    return { ...info, labels: new Int8Array(content) };
  }

  // The attention of the class token: { weights (n), tops, layer }. The network runs over the photos for it.
  async attention(tell) {
    await this.json("POST", `${this.path}/attention`);
    await this.follow(tell);
    const { info, content } = await this.packed("/attention");
    return { ...info, weights: new Float32Array(content) };
  }

  // Shows other photos of the feature store: { keep: rows, add: places in the store, find: part of a name, seed }.
  async showStored(request, tell) {
    await this.json("POST", `${this.path}/shown`, { json: request });
    await this.follow(tell);
  }

  // The photos of the store with the patches that are most similar to one, best first.
  async searchStored(request, tell) {
    await this.json("POST", `${this.path}/search`, { json: request });
    await this.follow(tell);
    return this.json("GET", `${this.path}/search`);
  }

  // Reads an answer of explorer/modes.py: the length of a JSON text, the text, then bytes.
  async packed(path) {
    const content = await (await this.ask("GET", this.path + path)).arrayBuffer();
    const end = 4 + new DataView(content).getUint32(0, true);
    return { info: JSON.parse(new TextDecoder().decode(content.slice(4, end))), content: content.slice(end) };
  }

  async photo(index) {
    return (await this.ask("GET", `${this.path}/photos/${index}`)).blob();
  }
}

async function headAnswer(response, K) {
  const content = await response.arrayBuffer();
  const view = new DataView(content);
  const length = view.getUint32(0, true);
  const n = (content.byteLength - 4 - length) / (4 * K + 5);
  const [decided, scored, classed] = [4 + length, 4 + length + 4 * n * K, 4 + length + 4 * n * (K + 1)];
  return {
    head: new Uint8Array(content.slice(4, decided)),
    decisions: Float64Array.from({ length: n * K }, (_, i) => view.getInt32(decided + 4 * i, true) * DECISION_GRID),
    score: Float32Array.from({ length: n }, (_, i) => view.getFloat32(scored + 4 * i, true)),
    classes: new Uint8Array(content.slice(classed)),
  };
}
