// The status page as people use it, in a browser without a window: node page.mjs SCENARIO. It fails when the page does not
// do what it says. PUBLIC and ADMIN are the addresses of the gate's listeners; what else a scenario wants stands there.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { browse } from './browser.mjs';

const { PUBLIC, ADMIN, KEY, STOPPED, TOKEN, AXE, PICTURES } = process.env;
const page = `http://${ADMIN}/`;
const VIEWS = ['#/', '#/accounts', '#/accounts/1250000001', '#/decisions'];

const call = (key = KEY) =>
  fetch(`http://${PUBLIC}/v1/portrait/segment`, {
    method: 'POST',
    headers: { 'x-api-key': key, 'content-type': 'application/json' },
    body: '{"Image":"iVBORw0KGgo="}',
  });

/** The sums of the decided calls, as Prometheus has them. */
async function decided() {
  const lines = (await (await fetch(`http://${ADMIN}/metrics`)).text())
    .split('\n')
    .filter(line => line.startsWith('tollgate_requests_total'));
  const of = decision =>
    lines.filter(line => line.includes(`decision="${decision}"`)).reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  return ['admitted', 'throttled', 'refused'].map(of);
}

const figure = id => `document.querySelector('[data-figure=${id}]')?.textContent`;
const shows = (id, value) => `${figure(id)} === ${JSON.stringify(value.toLocaleString('en'))}`;
const totals = ['total-admitted', 'total-throttled', 'total-refused'];
const heading = text => `document.querySelector('h1')?.textContent.includes(${JSON.stringify(text)})`;

/** All that was asked for came from the listener, and nothing was complained of. */
function assertQuiet(tab) {
  assert.deepEqual(tab.said, []);
  assert.ok(tab.requests.length > 10);
  for (const { url } of tab.requests) assert.ok(url.startsWith(page), url);
}

async function figuresAreThoseOfTheMetrics(tab) {
  await tab.open(page);
  for (const [nth, value] of (await decided()).entries()) {
    assert.ok(value > 0);
    await tab.until(shows(totals[nth], value));
  }
  assert.match(await tab.run(figure('connections')), /^\d+ \/ [\d,]+$/);
}

/** A throttle that happens while the page is open is seen without anybody doing anything. */
async function aThrottleAppears(tab) {
  const [, before] = await decided();
  const answers = await Promise.all(Array.from({ length: 30 }, call));
  const throttled = answers.filter(answer => answer.status === 429);
  assert.ok(throttled.length > 0);
  await tab.until(shows('total-throttled', before + throttled.length));
  const id = throttled.at(-1).headers.get('x-request-id');
  await tab.until(`document.querySelector('a[href="#/decisions/${id}"]') !== null`);
  // Newer ones do not take away what somebody has reached with the keyboard.
  const link = `document.querySelector('a[href="#/decisions/${id}"]')`;
  await tab.run(`${link}.focus()`);
  const asked = () => tab.requests.filter(({ url }) => url.endsWith('/v1/status/news')).length;
  for (const seen = asked(); asked() < seen + 2;) {
    // Refused at any pace.
    await call(STOPPED);
    await tab.run('new Promise(requestAnimationFrame)');
  }
  assert.ok(await tab.run(`document.activeElement === ${link}`));
  await tab.run(`${link}.click()`);
  await tab.until(`document.querySelector('main section')?.textContent.includes('over_quota')`);
  const said = await tab.run(`document.querySelector('main section').textContent`);
  for (const expected of [id, '1250000001', 'SegmentPortraitPic', '429'])
    assert.ok(said.includes(expected), `${expected}: ${said}`);
}

async function accountsAreListedSearchedAndSorted(tab) {
  await tab.open(`${page}#/accounts`);
  const ids = `[...document.querySelectorAll('tr[data-account]')].map(row => row.dataset.account).join()`;
  await tab.until(`${ids} === '1250000001,1250000002,1250000003,1250000004'`);
  const row = `document.querySelector('tr[data-account="1250000001"]')`;
  // The name is a text whatever stands in it.
  assert.equal(
    await tab.run(`${row}.cells[1].textContent`),
    '<script>document.title = "owned"</script><img src=x onerror=owned()>',
  );
  assert.equal(await tab.run(`document.querySelectorAll('main script, main img').length`), 0);
  await tab.until(`/^\\d+ \\/ 20$/.test(${row}.querySelector('[role=meter]').getAttribute('aria-valuetext'))`);
  const lines = (await (await fetch(`http://${ADMIN}/metrics`)).text()).split('\n');
  const of = decision =>
    lines
      .find(
        line =>
          line.startsWith('tollgate_account_requests_total') &&
          line.includes('"1250000001"') &&
          line.includes('"portrait') &&
          line.includes(decision),
      )
      .split(' ')
      .at(-1);
  await tab.until(`${row}.cells[3].textContent === '${of('admitted')}' && ${row}.cells[4].textContent === '${of('throttled')}'`);
  // What the ledger knows comes after.
  await tab.until(
    `${row}.cells[6].textContent === '${of('admitted')}' && ${row}.cells[8].textContent === '10,000' && ${row}.cells[9].textContent === '500.00'`,
  );
  await tab.run(`document.getElementById('search').focus()`);
  await tab.write('retail');
  await tab.until(`${ids} === '1250000002'`);
  await tab.open(`${page}#/accounts?sort=throttled&descending=true&only=called`);
  await tab.until(`${ids} === '1250000001,1250000003'`);
  await tab.open(`${page}#/accounts?only=arrears`);
  await tab.until(`${ids} === '1250000003'`);
}

async function anAccountHasAPageOfItsOwn(tab) {
  await tab.open(`${page}#/accounts/1250000001`);
  await tab.until(heading('<script>document.title = "owned"</script>'));
  assert.doesNotMatch(await tab.run('document.title'), /^owned/);
  await tab.until(
    `['P-1', 'T-1', '57b552b9', 'over_quota'].every(text => document.querySelector('main').textContent.includes(text))`,
  );
  await tab.until(`/2\\d{3}-\\d\\d, provisional/.test(document.querySelector('main').textContent)`);
}

async function whatHappenedIsShown(tab) {
  await tab.open(page);
  await tab.until(`document.querySelector('main').textContent.includes('no-such-mode<b>')`);
  assert.equal(await tab.run(`document.querySelectorAll('main b').length`), 0);
}

/** Whoever leaves the page and comes back again and again leaves no connection behind. */
async function nothingStaysOfAPageThatWasLeft(tab) {
  for (let times = 0; times < 8; times += 1) {
    await tab.open('about:blank');
    await tab.open(`${page}#/accounts/1250000001`);
    await tab.until(
      `document.getElementById('line')?.textContent === 'connected' && document.querySelector('main').innerText.includes('provisional')`,
    );
  }
  // By the browser's own button the page comes as it was left, and lives.
  await tab.open('about:blank');
  await tab.run('history.back()');
  await tab.until(
    `document.getElementById('line')?.textContent === 'connected' && document.querySelector('main').innerText.includes('provisional')`,
  );
}

/** Ten people look, and Prometheus finds a connection all the same. */
async function tenPeopleMayLook(browser) {
  const tabs = await Promise.all(Array.from({ length: 10 }, browser.tab));
  await Promise.all(tabs.map(tab => tab.open(page)));
  await Promise.all(tabs.map(tab => tab.until(figure('total-admitted'))));
  const said = await Promise.all(tabs.map(tab => tab.run(`document.getElementById('line').textContent`)));
  assert.deepEqual([...new Set(said)], ['connected']);
  assert.equal((await decided()).length, 3);
  // Few questions are answered at once: a page that comes when there are more asks again, and the browser says so.
  const asksAgain = line => /status of 503 .*\/v1\/status\/(news|history|books|accounts)/.test(line);
  for (const tab of tabs) assert.deepEqual(tab.said.filter(line => !asksAgain(line)), []);
  await Promise.all(tabs.map(tab => tab.open('about:blank')));
}

/** With the keyboard alone: past the link that skips, to the list of accounts, and to one account. */
async function theKeyboardIsEnough(tab) {
  await tab.open('about:blank');
  await tab.open(page);
  await tab.until(figure('total-admitted'));
  const focused = 'document.activeElement.textContent.trim()';
  await tab.press('Tab');
  assert.equal(await tab.run(focused), 'Skip to the content');
  while ((await tab.run(focused)) !== 'Accounts') await tab.press('Tab');
  await tab.press('Enter');
  await tab.until(heading('Accounts'));
  await tab.until(`document.querySelector('tr[data-account]') !== null`);
  assert.equal(await tab.run('document.activeElement.id'), 'main', 'a reader begins at what is new');
  for (let presses = 0; (await tab.run(focused)) !== '1250000002'; presses += 1) {
    assert.ok(presses < 30);
    await tab.press('Tab');
  }
  // A list that is drawn anew does not take the focus away.
  const seen = tab.requests.length;
  while (tab.requests.length < seen + 2) await new Promise(resolve => setTimeout(resolve, 50));
  assert.equal(await tab.run(focused), '1250000002');
  await tab.press('Enter');
  await tab.until(heading('Example Retail'));
}

/** No rule of the checker is broken. */
async function assertUsable(tab, what) {
  await tab.run(`document.querySelectorAll('details').forEach(each => { each.open = true; })`);
  await tab.run(`${readFileSync(AXE, 'utf8')}; 0`);
  const { violations, passes } = await tab.run(`axe.run().then(({ violations, passes }) => ({ passes: passes.length,
    violations: violations.map(of => of.id + ': ' + of.nodes.map(node => node.target + ' ' + node.failureSummary).join(' | ')) }))`);
  assert.deepEqual(violations, [], what);
  assert.ok(passes > 10);
}

/** In both themes and languages everybody can use each view. */
async function everybodyCanUseIt(tab) {
  const grounds = new Set();
  for (const [theme, language] of [
    ['light', 'en'],
    ['dark', 'zh-CN'],
  ]) {
    await tab.emulate(theme);
    await tab.run(
      `(() => { const of = document.getElementById('language'); of.value = '${language}'; of.dispatchEvent(new Event('change')); })()`,
    );
    assert.equal(await tab.run('document.documentElement.lang'), language);
    for (const view of VIEWS) {
      await tab.open(`${page}${view}`);
      await tab.until(`document.querySelector('main section')?.textContent.length > 30`);
      await assertUsable(tab, `${view} ${theme} ${language}`);
    }
    grounds.add(await tab.run('getComputedStyle(document.body).backgroundColor'));
    await tab.open(page);
    await tab.until(heading(language === 'en' ? 'Now' : '实时'));
  }
  assert.equal(grounds.size, 2, 'the page follows the system');
  await tab.run(
    `(() => { const of = document.getElementById('theme'); of.value = 'light'; of.dispatchEvent(new Event('change')); })()`,
  );
  assert.equal(await tab.run('getComputedStyle(document.body).backgroundColor'), 'rgb(246, 247, 249)');
  const [english, chinese] = await tab.run(`import('/page/words.js').then(words => words.names())`);
  assert.deepEqual(english, chinese, 'neither language lacks a word');
}

const scenarios = {
  /** A gate without a token that has admitted, throttled and refused calls, and refused a reload. */
  async open(tab, browser) {
    await tab.emulate('light');
    await figuresAreThoseOfTheMetrics(tab);
    await whatHappenedIsShown(tab);
    await aThrottleAppears(tab);
    await accountsAreListedSearchedAndSorted(tab);
    await anAccountHasAPageOfItsOwn(tab);
    await theKeyboardIsEnough(tab);
    await nothingStaysOfAPageThatWasLeft(tab);
    await tenPeopleMayLook(browser);
    await everybodyCanUseIt(tab);
    assertQuiet(tab);
  },

  /** A gate whose admin token is TOKEN. */
  async token(tab, browser) {
    await tab.open(page);
    await tab.until(`document.activeElement.id === 'token'`);
    await assertUsable(tab, 'the form of the token');
    const enter = async token => {
      await tab.write(token);
      await tab.press('Enter');
    };
    await enter('wrong');
    await tab.until(
      `document.querySelector('[role=alert]')?.textContent === 'That was not the admin token.' && document.getElementById('token').value === ''`,
    );
    await enter(TOKEN);
    await tab.until(figure('total-admitted'));
    // The tab keeps it, and no other one has it.
    await tab.open('about:blank');
    await tab.open(`${page}#/accounts`);
    await tab.until(`document.querySelectorAll('tr[data-account]').length === 4`);
    assert.equal(await tab.run('localStorage.length + document.cookie.length'), 0);
    assert.ok(tab.requests.some(({ headers }) => headers.authorization === `Bearer ${TOKEN}`));
    for (const { url, headers } of tab.requests) {
      assert.ok(!url.includes(TOKEN) && (url === 'about:blank' || url.startsWith(page)), url);
      const has_data = url.includes('/v1/');
      assert.ok(has_data || !headers.authorization, url);
    }
    const refusals = tab.said.filter(line => !line.includes('401'));
    assert.deepEqual(refusals, []);
    const other = await browser.tab();
    await other.open(page);
    await other.until(`document.activeElement.id === 'token'`);
  },

  /** Pictures of a gate at work, such as the demo's, into the folder PICTURES: deploy/images has those of the READMEs. */
  async pictures(tab) {
    for (const [theme, language, view, name, height] of [
      ['light', 'en', '#/', 'status', 1080],
      ['dark', 'zh-CN', '#/', 'status', 1080],
      ['dark', 'en', '#/accounts', 'accounts', 620],
      ['light', 'zh-CN', '#/accounts', 'accounts', 620],
      ['light', 'en', '#/accounts/1250000001', 'account', 1080],
      ['dark', 'zh-CN', '#/accounts/1250000001', 'account', 1080],
    ]) {
      await tab.emulate(theme);
      await tab.open(page);
      await tab.until(`document.getElementById('language')`);
      await tab.run(`localStorage.setItem('tollgate.language', '${language}')`);
      await tab.open('about:blank');
      await tab.open(page + view);
      await tab.until(`document.querySelector('main section')?.textContent.length > 30`);
      // Each section has more than its heading.
      await tab.until(
        `[...document.querySelectorAll('main section')].every(each => each.innerText.trim() !== each.querySelector('h2')?.innerText)`,
      );
      await new Promise(resolve => setTimeout(resolve, 1000));
      writeFileSync(`${PICTURES}/${name}-${theme}-${language}.png`, Buffer.from(await tab.picture(1240, height), 'base64'));
    }
  },
};

const browser = await browse();
try {
  await scenarios[process.argv[2]](await browser.tab(), browser);
} finally {
  await browser.close();
}
