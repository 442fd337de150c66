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

/** The answer, as JSON. A gate that is asked too much at once is asked again. */
export async function ask(path, signal) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await (await answered(path, signal)).json();
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

/** Tells the figures of now each second, until the signal; and whether the gate answers. */
export async function listen(tell, tellLine, signal) {
  while (!signal.aborted) {
    try {
      await follow(now => {
        tellLine(true);
        tell(now);
      }, signal);
      tellLine(false);
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
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
