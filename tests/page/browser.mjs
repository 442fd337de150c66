// A browser without a window, driven through a pipe (Chrome DevTools Protocol), and what it said and asked for.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--no-proxy-server',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--hide-scrollbars',
  '--remote-debugging-pipe',
  '--window-size=1280,900',
];
/** The longest that anything is waited for. */
const BOUND = 20_000;

/** Starts the browser. */
export async function browse() {
  const profile = mkdtempSync(join(tmpdir(), 'page-'));
  const child = spawn('chromium', [...FLAGS, `--user-data-dir=${profile}`, 'about:blank'], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
  });
  const ended = new Promise(resolve => child.once('exit', resolve));
  const [waiting, listeners] = [new Map(), []];
  let [next, text] = [1, ''];
  child.stdio[4].setEncoding('utf8').on('data', chunk => {
    const messages = (text + chunk).split('\0');
    text = messages.pop();
    for (const message of messages.map(JSON.parse)) {
      const asked = waiting.get(message.id);
      waiting.delete(message.id);
      if (!asked) listeners.forEach(listen => listen(message));
      else if (message.error) asked.reject(new Error(`${asked.method}: ${message.error.message}`));
      else asked.resolve(message.result);
    }
  });
  const send = (method, params = {}, sessionId = undefined) =>
    new Promise((resolve, reject) => {
      waiting.set(next, { resolve, reject, method });
      child.stdio[3].write(`${JSON.stringify({ id: next, method, params, sessionId })}\0`);
      next += 1;
    });
  return {
    tab: () => tab(send, listeners),
    async close() {
      await Promise.race([send('Browser.close').catch(() => {}), ended]);
      await ended;
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** A tab with a store of its own, as another person has. */
async function tab(sendTo, listeners) {
  const { browserContextId } = await sendTo('Target.createBrowserContext');
  const { targetId } = await sendTo('Target.createTarget', { url: 'about:blank', browserContextId });
  const { sessionId } = await sendTo('Target.attachToTarget', { targetId, flatten: true });
  const send = (method, params) => sendTo(method, params, sessionId);
  const [said, requests] = [[], []];
  listeners.push(({ method, params, sessionId: of }) => {
    if (of !== sessionId) return;
    if (method === 'Runtime.consoleAPICalled') said.push(params.args.map(each => each.value ?? each.description).join(' '));
    if (method === 'Runtime.exceptionThrown')
      said.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === 'Log.entryAdded') said.push(`${params.entry.text} ${params.entry.url ?? ''}`);
    if (method === 'Network.requestWillBeSent') requests.push({ url: params.request.url, headers: params.request.headers });
  });
  for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await send(`${domain}.enable`);

  /** The value of a text of JavaScript, run in the page. */
  async function run(expression) {
    const { result, exceptionDetails } = await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  }
  return {
    said,
    requests,
    run,
    send,
    open: url => send('Page.navigate', { url }),
    /** Waits until the text of JavaScript has a value that is true, and gives it. */
    async until(expression) {
      const end = Date.now() + BOUND;
      for (;;) {
        const value = await run(expression).catch(error => {
          if (Date.now() > end) throw error;
        });
        if (value) return value;
        if (Date.now() > end)
          throw new Error(`never: ${expression}\n${await run('document.body.innerText')}\n${said.join('\n')}`);
        await new Promise(resolve => setTimeout(resolve, 50));
      }
    },
    emulate: (theme, language) =>
      Promise.all([
        send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: theme }] }),
        language ? send('Emulation.setLocaleOverride', { locale: language }) : null,
      ]),
    async press(key) {
      const codes = { Tab: 9, Enter: 13 };
      const of = { key, code: key, windowsVirtualKeyCode: codes[key], ...(key === 'Enter' ? { text: '\r' } : {}) };
      await send('Input.dispatchKeyEvent', { type: 'keyDown', ...of });
      await send('Input.dispatchKeyEvent', { type: 'keyUp', ...of });
    },
    write: text => send('Input.insertText', { text }),
    /** A picture of the whole page, as PNG in base 64. */
    async picture(width, height) {
      await send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false });
      return (await send('Page.captureScreenshot', { format: 'png' })).data;
    },
  };
}
