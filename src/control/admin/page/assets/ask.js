// Questions to the gate. The token is kept for the tab alone, and goes in a header: never in an address.

const KEPT = 'tollgate.token';
let tokenWanted = () => {};

/** Who is told that a token is wanted; it gets the reason. */
export function onTokenWanted(tell) {
  tokenWanted = tell;
}

export function setToken(token) {
  sessionStorage.setItem(KEPT, token);
}

/** Why a question was not answered. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function answered(path, signal) {
  const token = sessionStorage.getItem(KEPT);
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { headers, signal, cache: 'no-store', credentials: 'omit', redirect: 'error' });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  // An answer to a token that was replaced meanwhile says nothing of the new one.
  if (response.status === 401 && token === sessionStorage.getItem(KEPT)) tokenWanted(token ? 'tokenWrong' : 'tokenWanted');
  throw new Refused(response.status, problem.detail || `${response.status}`);
}

const wait = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

/** The answer, as JSON. A gate that is asked too much at once is asked again, and one that is silent is not waited for. */
export async function ask(path, signal) {
  for (let tries = 1; ; tries += 1) {
    try {
      const patience = AbortSignal.timeout(20_000);
      return await (await answered(path, signal ? AbortSignal.any([signal, patience]) : patience)).json();
    } catch (error) {
      if (error.status !== 503 || tries === 4 || signal?.aborted) throw error;
      await wait(400 * tries);
    }
  }
}

async function follow(tell, signal) {
  const reader = (await answered('/v1/status/live', signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split('\n\n');
    text = events.pop();
    for (const event of events) {
      const data = event
        .split('\n')
        .filter(line => line.startsWith('data: '))
        .map(line => line.slice(6));
      if (data.length) tell(JSON.parse(data.join('\n')));
    }
  }
}

/** Until the page is looked at. A browser has six connections to a gate for all its tabs: a hidden one takes none. */
function lookedAt(signal) {
  return new Promise(resolve => {
    if (!document.hidden || signal.aborted) return resolve();
    document.addEventListener('visibilitychange', resolve, { once: true, signal });
    return signal.addEventListener('abort', resolve, { once: true });
  });
}

/** A signal for as long as the page is looked at. */
function whileLookedAt(signal) {
  const looked = new AbortController();
  const hide = () => document.hidden && looked.abort();
  document.addEventListener('visibilitychange', hide, { signal: AbortSignal.any([signal, looked.signal]) });
  return AbortSignal.any([signal, looked.signal]);
}

/** Tells the figures of now each second while the page is looked at, until the signal; and whether the gate answers. */
export async function listen(tell, tellLine, signal) {
  while (!signal.aborted) {
    await lookedAt(signal);
    const looked = whileLookedAt(signal);
    try {
      await follow(now => {
        tellLine(true);
        tell(now);
      }, looked);
      tellLine(false);
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      if (looked.aborted) continue;
      if (error.status === 503) {
        // Too many pages listen: this one asks now and then.
        await ask('/v1/status/now', signal)
          .then(now => {
            tellLine(true);
            tell(now);
          })
          .catch(() => tellLine(false));
      } else {
        tellLine(false, error.status ? error.message : '');
      }
    }
    await wait(3000);
  }
}
