// A content script asks as the page that it is in, and is refused; by way of its worker it is answered.
const { service } = document.documentElement.dataset;
const report = (name, seen) => fetch(`/${name}`, { method: "POST", body: JSON.stringify(seen) });

async function asThePage() {
  const response = await fetch(`${service}/v1/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ messages: [{ role: "user", content: "!say This must not be, says the page." }] }),
  });
  return { status: response.status, error: (await response.json()).error?.message };
}

asThePage()
  .catch((error) => ({ error: String(error) }))
  .then((seen) => report("refused", seen));
chrome.runtime
  .sendMessage({ content: "!first 42 !say You have waited." })
  .catch((error) => ({ error: String(error) }))
  .then((seen) => report("messaged", seen));
