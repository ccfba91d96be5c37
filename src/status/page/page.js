// The station's page: reads /api/v1/*, listens to /api/v1/events, draws. No outside code; everything is text, never markup.
"use strict";

const KEPT = 240; // parts in lists and trends
const $ = (id) => document.getElementById(id);
const SIGN = { OK: "✓", NG: "✗", ERROR: "!" };
const STATES = {
  preoperational: ["not ready", "warn"], ready: ["ready", "good"], continuous_execution: ["inspecting", "good"],
  error: ["error", "bad"], halted: ["stopped", "bad"],
};
const style = getComputedStyle(document.documentElement);
const colour = (name) => style.getPropertyValue("--" + name).trim();

let parts = []; // newest first
let filter = "";
let facts = null;

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}
const text = (id, value) => { if ($(id).textContent !== String(value)) $(id).textContent = value; };
const number = (value, digits = 0) => (Number.isFinite(value) ? value.toFixed(digits) : "–");
const time = (stamp) => new Date(stamp).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const dateTime = (stamp) => new Date(stamp).toLocaleString([], { dateStyle: "medium", timeStyle: "medium", hour12: false });
const median = (list) => { const s = [...list].sort((a, b) => a - b); return s.length ? s[Math.floor((s.length - 1) / 2)] : NaN; };

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

// -- the last part

function summary(part) {
  if (part.error) return part.error.message;
  if (part.verdict === "OK") return `score ${number(part.max_score, 2)}`;
  return `${part.defects_total} defect${part.defects_total === 1 ? "" : "s"}, score ${number(part.max_score, 2)}`;
}

function showLast() {
  const part = parts[0];
  if (!part) return;
  $("verdict").className = "verdict " + part.verdict;
  text("sign", SIGN[part.verdict]);
  text("word", part.verdict);
  text("what", summary(part));
  text("caption", `part ${part.part_id ?? part.seq} · ${time(part.captured_at)} · ${part.template} · ${number(part.ms.total)} ms`);
}

function row(part) {
  const item = element("li", { className: part.verdict, tabIndex: 0 },
    element("span", { className: "v", textContent: `${SIGN[part.verdict]} ${part.verdict}` }),
    element("span", { className: "dim", textContent: time(part.captured_at) }),
    element("span", { className: "t", textContent: `${part.part_id ?? "#" + part.seq} · ${part.error ? part.error.code : summary(part)}` }),
    element("span", { className: "dim", textContent: `${number(part.ms.total)} ms` }));
  const open = () => showDetail(part.event_id);
  item.addEventListener("click", open);
  item.addEventListener("keydown", (e) => { if (e.key === "Enter") open(); });
  return item;
}

function showList() {
  const wanted = parts.filter((p) => !filter || p.verdict === filter);
  $("parts").replaceChildren(...wanted.slice(0, 100).map(row));
  $("strip").replaceChildren(...parts.slice(0, 120).reverse().map((p) => element("i", { className: p.verdict })));
}

function showFigures() {
  const recent = parts.slice(0, 60);
  text("n-time", number(median(recent.filter((p) => p.verdict !== "ERROR").map((p) => p.ms.total))));
  if (recent.length > 1) {
    const span = new Date(recent[0].captured_at) - new Date(recent[recent.length - 1].captured_at);
    text("n-takt", number(span > 0 ? (recent.length - 1) / span * 60000 : NaN, span > 600000 ? 1 : 0));
  }
}

// -- trends

function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(150 * ratio)) canvas.height = Math.round(150 * ratio);
  const c = canvas.getContext("2d");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, 150);
  c.font = "12px system-ui, sans-serif";
  return [c, width, 150];
}

function axis(c, width, y, label) {
  c.strokeStyle = colour("line");
  c.beginPath(); c.moveTo(36, y + .5); c.lineTo(width, y + .5); c.stroke();
  c.fillStyle = colour("dim"); c.textAlign = "right"; c.textBaseline = "middle";
  c.fillText(label, 32, y);
}

function drawScores() {
  const [c, width, height] = prepare($("scores"));
  const shown = parts.slice(0, KEPT).reverse();
  const y = (v) => height - 12 - v * (height - 24);
  for (const v of [0, 0.5, 1]) axis(c, width, y(v), v.toFixed(1));
  const step = (width - 44) / Math.max(shown.length, 40);
  const x = (i) => width - 6 - (shown.length - 1 - i) * step;
  c.strokeStyle = colour("error"); c.setLineDash([4, 3]); c.beginPath();
  shown.forEach((p, i) => (i ? c.lineTo(x(i), y(p.threshold)) : c.moveTo(x(i), y(p.threshold))));
  c.stroke(); c.setLineDash([]);
  shown.forEach((p, i) => {
    c.fillStyle = colour(p.verdict.toLowerCase());
    if (p.verdict === "ERROR") { c.fillRect(x(i) - 1, y(0) - 8, 2, 8); return; }
    c.beginPath(); c.arc(x(i), y(Math.min(p.max_score, 1)), 2.6, 0, 7); c.fill();
  });
}

function drawTimes() {
  const [c, width, height] = prepare($("times"));
  const shown = parts.slice(0, KEPT).reverse();
  const sorted = shown.map((p) => p.ms.total).sort((a, b) => a - b);
  // One late part must not flatten all the others.
  const top = Math.max(10, (sorted[Math.floor(sorted.length * 0.98)] ?? 10) * 1.15);
  const y = (v) => height - 12 - Math.min(v / top, 1) * (height - 24);
  for (const v of [0, top / 2, top]) axis(c, width, y(v), v.toFixed(0));
  const step = (width - 44) / Math.max(shown.length, 40);
  const bar = Math.max(1, step * 0.8);
  shown.forEach((p, i) => {
    const left = width - 6 - (shown.length - i) * step;
    let sum = 0;
    for (const name of ["align", "infer", "decide", "queue"]) {
      const ms = p.ms[name] ?? 0;
      c.fillStyle = colour(name);
      c.fillRect(left, y(sum + ms), bar, y(sum) - y(sum + ms));
      sum += ms;
    }
  });
}

let drawing = false;
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    showLast(); showList(); showFigures(); drawScores(); drawTimes();
  });
}

// -- facts

function showStatus(s) {
  facts = s;
  text("station", s.station);
  document.title = `${s.station} · SSDS`;
  const [word, kind] = s.paused ? ["paused", "warn"] : STATES[s.state] ?? [s.state, "warn"];
  text("state", word);
  $("state").className = "pill " + kind;
  const t = s.product?.template;
  text("product", t ? `${s.product.name} · template v${t.version}` : "");
  const reasons = s.reasons.join(" · ");
  $("reasons").hidden = !reasons;
  text("reasons", reasons);
  $("alarms").replaceChildren(...s.alarms.map((a) =>
    element("li", { className: a.severity, textContent: `⚠ ${a.code.replaceAll("_", " ")} since ${time(a.since)}: ${a.message}` })));
  text("n-dropped", s.frames.dropped + s.frames.lost);
  text("n-outbox", s.mqtt ? s.mqtt.outbox_events : "off");
  $("operate").hidden = !s.writes_by_token;
  const m = s.model;
  const rows = {
    "network": m && `${m.model} ${m.version}`,
    "runs on": m && `${m.provider}, ${m.precision}, ${m.threads} thread${m.threads === 1 ? "" : "s"}`,
    "instead of": m && m.fallbacks.map((f) => f.provider).join(", "),
    "library": m && `ONNX Runtime ${m.runtime_version}`,
    "verified": m && (m.parity.state === "unverified" ? "no golden vector" : `differs by ${m.parity.max_abs.toExponential(1)}`),
    "broker": s.mqtt ? `${s.mqtt.broker}: ${s.mqtt.link}${s.mqtt.message ? " (" + s.mqtt.message + ")" : ""}` : "off",
    "frames": `${s.frames.captured} captured = ${s.frames.recorded} recorded + ${s.frames.dropped} dropped + ${s.frames.in_flight} under way`,
    "program": s.version,
  };
  $("facts").replaceChildren(...Object.entries(rows).filter(([, v]) => v).flatMap(([k, v]) =>
    [element("dt", { textContent: k }), element("dd", { textContent: v })]));
}

async function showStats() {
  const s = await get("/api/v1/stats");
  const { ok, ng, error } = s.inspections;
  text("n-ok", ok); text("n-ng", ng); text("n-error", error);
  text("n-yield", ok + ng ? `${number(100 * ok / (ok + ng), 1)}%` : "–");
  const order = ["capture", "align", "infer", "decide", "record"].filter((name) => s.stages[name]);
  const rows = [...order.map((name) => [name, s.stages[name]]), ["frame to record", s.end_to_end]];
  $("stages").tBodies[0].replaceChildren(...rows.filter(([, t]) => t.count).map(([name, t]) =>
    element("tr", {}, ...[name, number(t.mean_ms, 1), number(t.p99_ms, 1), number(t.max_ms, 1)].map((v) => element("td", { textContent: v })))));
}

async function showTemplates() {
  const [{ templates }, { active }] = await Promise.all([get("/api/v1/templates"), get("/api/v1/recipes")]);
  const own = facts?.product?.template?.id;
  const sorted = templates.sort((a, b) => (b.id === own) - (a.id === own) || a.id.localeCompare(b.id) || b.version - a.version);
  $("templates").replaceChildren(...sorted.slice(0, 12).map((t) => element("li", {},
    element("img", { src: `/api/v1/templates/${t.sha256}/picture.png`, alt: `Template ${t.id} version ${t.version}`, loading: "lazy" }),
    element("span", {},
      element("div", { textContent: `${t.id} v${t.version}` }),
      element("small", { className: "dim", textContent: `${t.size_px[0]}×${t.size_px[1]} px, ${new Date(t.taught_at).toLocaleDateString([], { dateStyle: "medium" })}` })),
    element("span", { className: "grow" }),
    t.active ? element("span", { className: "active", textContent: "in force" })
      : facts?.writes_by_token ? element("button", { type: "button", textContent: "Use", onclick: () => activate(t) }) : null)));
  text("recipe", active ? `${active.product}: ${active.zones.length} zone${active.zones.length === 1 ? "" : "s"}`
    + (active.zones.length ? ` (${active.zones.join(", ")})` : "") + `, since ${dateTime(active.activated_at)}`
    : "none applied: inspected as configured");
}

// -- one part in detail

async function showDetail(id) {
  const base = `/api/v1/inspections/${id}`;
  const e = await get(base);
  text("d-title", `${SIGN[e.verdict]} ${e.verdict} · part ${e.part_id ?? e.seq}`);
  text("d-text", e.error ? `${e.error.code}: ${e.error.message}` : summary({ ...e, max_score: e.decision.max_score }));
  const names = e.pictures.length ? e.pictures : [];
  $("d-pictures").replaceChildren(...names.map((name) => element("figure", { className: name.startsWith("overlay") ? "wide" : "" },
    element("img", { src: `${base}/${name}`, alt: name, loading: "lazy" }),
    element("figcaption", { className: "dim", textContent: name.replace(".png", "") }))));
  if (!names.length) $("d-pictures").replaceChildren(element("p", { className: "dim", textContent: "No pictures were kept of this part." }));
  const head = ["", "kind", "place", "area px", "score", "zone"];
  $("d-defects").replaceChildren(...(e.defects.length ? [
    element("tr", {}, ...head.map((h) => element("th", { textContent: h }))),
    ...e.defects.map((d) => element("tr", {}, ...[d.id, d.sign ?? "", `${d.bbox_px[0]}, ${d.bbox_px[1]}`, d.area_px, number(d.score_max, 2), d.zone]
      .map((v) => element("td", { textContent: v }))))] : []));
  const a = e.align;
  const rows = {
    captured: dateTime(e.captured_at), sequence: e.seq, product: e.product,
    template: `${e.template.id} version ${e.template.version}`,
    pose: a.ok ? `${number(a.rotation_deg, 2)}°, scale ${number(a.scale, 3)}, ${number(a.dx_px, 1)} ${number(a.dy_px, 1)} px` : "not found",
    network: `${e.model.name} ${e.model.version ?? ""} on ${e.model.provider} (${e.model.precision}), ONNX Runtime ${e.model.runtime_version ?? "?"}`,
    times: Object.entries(e.timing_ms).map(([k, v]) => `${k} ${number(v, 1)}`).join(", ") + " ms",
    broker: e.acknowledged ? "has it" : "waits", id: e.event_id,
  };
  $("d-facts").replaceChildren(...Object.entries(rows).flatMap(([k, v]) => [element("dt", { textContent: k }), element("dd", { textContent: v })]));
  if (!$("detail").open) $("detail").showModal();
}

// -- changes

async function post(path, body) {
  const token = $("o-token").value || sessionStorage.getItem("token") || "";
  const headers = { Authorization: `Bearer ${token}` };
  const answer = await fetch(path, { method: "POST", headers, body });
  const value = await answer.json().catch(() => ({}));
  if (answer.ok) sessionStorage.setItem("token", token);
  else if (answer.status === 401) sessionStorage.removeItem("token");
  text("o-answer", answer.ok ? `done: ${JSON.stringify(value)}` : `${answer.status}: ${value.error ?? answer.statusText}`);
  return answer.ok;
}

async function operate(path, body) {
  if (await post(path, body)) await refresh();
}

async function activate(template) {
  $("operator").showModal();
  if (!$("o-token").value && !sessionStorage.getItem("token")) {
    text("o-answer", `Enter the token, then use ${template.id} v${template.version} again.`);
    return;
  }
  await operate("/api/v1/templates/activate", JSON.stringify({ id: template.id, version: template.version }));
}

async function teach() {
  const file = $("o-picture").files[0];
  if (!file) return text("o-answer", "Choose a picture first.");
  const product = facts?.product?.name;
  if (!product) return text("o-answer", "No product is in force.");
  await operate(`/api/v1/teach?product=${encodeURIComponent(product)}&note=${encodeURIComponent("taught on the page: " + file.name)}`, file);
}

// -- start

async function refresh() {
  const [status, list] = await Promise.all([get("/api/v1/status"), get(`/api/v1/inspections?brief=true&limit=${KEPT}`)]);
  showStatus(status);
  parts = list.inspections;
  draw();
  await Promise.all([showStats(), showTemplates()]);
}

function live() {
  // A new address each time: a broken stream is not tried again by itself.
  $("live").src = `/live.mjpg?${Date.now()}`;
}

function listen() {
  const source = new EventSource("/api/v1/events");
  source.addEventListener("open", () => { $("offline").hidden = true; refresh().catch(() => {}); live(); });
  source.addEventListener("error", () => { $("offline").hidden = false; });
  source.addEventListener("part", (e) => {
    const part = JSON.parse(e.data);
    if (parts.some((p) => p.event_id === part.event_id)) return;
    parts.unshift(part);
    parts.length = Math.min(parts.length, KEPT);
    draw();
  });
  source.addEventListener("missed", () => refresh().catch(() => {}));
  source.addEventListener("status", (e) => {
    const before = facts?.product?.template?.sha256;
    showStatus(JSON.parse(e.data));
    if (before !== facts.product?.template?.sha256) showTemplates().catch(() => {});
  });
}

for (const button of document.querySelectorAll(".filter button")) {
  button.addEventListener("click", () => {
    filter = button.dataset.verdict;
    document.querySelectorAll(".filter button").forEach((b) => b.setAttribute("aria-pressed", b === button));
    showList();
  });
}
$("operate").addEventListener("click", () => { $("o-token").value = sessionStorage.getItem("token") ?? ""; text("o-answer", ""); $("operator").showModal(); });
$("o-pause").addEventListener("click", () => operate("/api/v1/pause"));
$("o-resume").addEventListener("click", () => operate("/api/v1/resume"));
$("o-trigger").addEventListener("click", () => operate("/api/v1/trigger", "{}"));
$("o-teach").addEventListener("click", teach);
$("o-form").addEventListener("submit", (e) => e.preventDefault());
window.addEventListener("resize", draw);
setInterval(() => { text("clock", dateTime(new Date())); }, 1000);
setInterval(() => { if (!document.hidden) showStats().catch(() => {}); }, 3000);
listen();
