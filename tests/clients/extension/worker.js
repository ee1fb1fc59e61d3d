// Asks the service in each way that an extension has, and tells the test what came. settings.js is written by the test.
import { REPORTS, SERVICE } from "./settings.js";

const report = (name, seen) => fetch(`${REPORTS}/${name}`, { method: "POST", body: JSON.stringify(seen) });

function send(content, more = {}, signal = undefined) {
  return fetch(`${SERVICE}/v1/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ messages: [{ role: "user", content }], ...more }),
    signal,
  });
}

async function ask(content, more) {
  const response = await send(content, more);
  const body = await response.json();
  return { status: response.status, text: body.choices?.[0].message.content, error: body.error?.message };
}

async function stream(content) {
  const response = await send(content, { stream: true });
  const pieces = [];
  let rest = "";
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: {")) pieces.push(JSON.parse(line.slice(6)).choices[0]?.delta.content ?? "");
    }
  }
  return { status: response.status, text: pieces.join(""), pieces: pieces.filter(Boolean).length };
}

async function hangUp(content) {
  const abort = new AbortController();
  const response = await send(content, { stream: true }, abort.signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let seen = ""; !seen.includes("token0"); ) seen += (await reader.read()).value; // comments come while it waits
  abort.abort();
  return { status: response.status };
}

// An extension API every 20 s while the work lasts, as in docs/browser-extensions.md.
async function keepingAlive(work) {
  const beat = setInterval(() => chrome.storage.local.get("beat"), 20_000);
  try {
    return await work();
  } finally {
    clearInterval(beat);
  }
}

async function tried(work) {
  const began = Date.now();
  const seen = await work().catch((error) => ({ error: String(error) }));
  return { ...seen, seconds: (Date.now() - began) / 1000 };
}

// An answer to a message that is waited for keeps the worker alive.
chrome.runtime.onMessage.addListener(({ content }, sender, reply) => {
  tried(() => ask(content)).then(reply);
  return true;
});

chrome.runtime.onInstalled.addListener(async () => {
  await report("plain", await tried(() => ask("!say Paris.")));
  await report("stream", await tried(() => stream("!slow 0.05 !tokens 5 go")));
  await report("wrong", await tried(() => ask("Hello?", { model: "unheard-of" })));
  await report("left", await tried(() => hangUp("!slow 0.1 !tokens 1000 go, says the extension")));
  await keepingAlive(async () => report("kept-alive", await tried(() => ask("!first 42 !say I have waited."))));
});
