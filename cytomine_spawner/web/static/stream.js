// Server-sent events over fetch: unlike EventSource it sends the header that the hub's login asks of scripts.

export const xsrf = () => document.querySelector("meta[name=xsrf]").content;

/**
 * Read one stream of events until it ends.
 * @param {string} url
 * @param {(event: string, data: any) => void} heard
 * @param {AbortSignal} [signal]
 * @returns {Promise<{status: number, message?: string}>} the answer's status; with the sentence of an error.
 */
export async function listen(url, heard, signal) {
  const answer = await fetch(url, {
    headers: { Accept: "application/json", "X-XSRFToken": xsrf() },
    redirect: "error",
    signal,
  });
  if (!answer.ok) {
    const fault = await answer.json().catch(() => ({}));
    return { status: answer.status, message: fault.message };
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return { status: answer.status };
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const fields = Object.fromEntries(
        event.split("\n").map((line) => {
          const colon = line.indexOf(":");
          return [line.slice(0, colon), line.slice(colon + 2)];
        }),
      );
      if (fields.event) heard(fields.event, JSON.parse(fields.data));
    }
  }
}
