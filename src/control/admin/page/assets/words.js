// The words of the page, in both languages.

const ENGLISH = {
  skip: 'Skip to the content', now: 'Now', accounts: 'Accounts', decisions: 'Why refused', language: 'Language', theme: 'Theme',
  auto: 'As the system', light: 'Light', dark: 'Dark', yes: 'yes', no: 'no', asTable: 'As a table (means of 5 minutes)', at: 'At',
  connected: 'live', away: 'The gate does not answer; trying again.',
  tokenWanted: 'This listener asks for the admin token.', tokenWrong: 'That was not the admin token.', token: 'Admin token', enter: 'Enter',
  tokenKept: 'It is kept until this tab is closed, and is sent to this listener alone.',
  admitted: 'Admitted', throttled: 'Throttled', refused: 'Refused', perSecond: 'a second', pending: 'Pending', inFlight: 'In flight',
  connections: 'Connections', inArrears: 'Accounts in arrears', calls: 'Calls a second', overhead: 'Time in the gate', upstream: 'Upstream',
  upstreamTime: 'Time of the upstream', half: 'p50', most: 'p99', minute: 'last minute',
  sinceStart: 'since the start', process: 'Process', state: 'State', since: 'Since', replica: 'Replica', generation: 'Generation', digest: 'Digest of the files',
  lastReload: 'Last reload took effect', restart: 'A restart is pending', clock: 'Wall clock is trusted', reachable: 'Can be reached',
  ledger: 'Ledger', healthy: 'Can be written', records: 'Newest record', lastCommit: 'Last commit', lag: 'Records that wait', size: 'Size', free: 'Free on the disk',
  days: 'Disk lasts, as in the last hour', daysOf: n => `${n} days`, longer: 'more than 10 years', store: 'Shared store', up: 'Answers', outbox: 'Outbox', server: 'Server', trouble: 'Trouble',
  notCollected: 'Not collected yet', notSent: 'Not sent yet', waited: 'Oldest has waited', collector: 'Collector', standing: 'Standing, as the collector says it', current: 'Heard now',
  stoppedAccounts: 'Stopped accounts', sources: 'Ledgers that are collected', told: 'Told', watermark: 'Complete until', none: 'none', alone: 'This gate decides alone.', stays: 'The records stay here.',
  reloads: 'Last reloads', outcome: 'Outcome', said: 'What was said', reloaded: 'reloaded', unchanged: 'unchanged', refusedReload: 'refused', moreLines: n => `and ${n} more lines`,
  events: 'Events that are not delivered', type: 'Type', failing: 'Failing since', newest: 'Newest calls that were not let through', decision: 'Decision', reason: 'Reason', requestId: 'Request id',
  failed: 'failed', ledgerAway: 'The ledger cannot be read now.', account: 'Account', action: 'Action', key: 'Key',
  search: 'Id or name', only: 'Show', all: 'all', called: 'with calls', withThrottles: 'with throttled calls', stopped: 'stopped', arrears: 'in arrears', sort: 'Sort by',
  id: 'Id', name: 'Name', used: 'Fullest window', descending: 'Highest first', found: (n, of) => `${n} of ${of} accounts`, rows: (a, b) => `${a} to ${b}`, before: 'Before', next: 'Next',
  window: 'Calls in this second, of the quota', month: 'Month’s calls', freeLeft: 'Free left', packsLeft: 'Packs left', balance: 'Balance', due: 'Due so far', standingOf: 'Standing', good: 'good',
  per_call: 'by the call', qps: 'by QPS', free_mode: 'free', violation: 'stopped: violation', arrearsStop: 'in arrears', useOf: group => `Calls in this second in ${group}`,
  lastHour: 'Last hour', noHour: 'More accounts have calls than have an hour here; this one has none.', soon: 'The first step ends within 15 seconds.',
  quotas: 'Quotas in force', group: 'Group', mode: 'Charged', quota: 'Quota a second', inUse: 'In use', because: 'Because', next_change: 'Next change', toDo: 'To call faster',
  orders: 'Orders', newestOf: (n, of) => `the newest ${n} of ${of}`, order: 'Order', what: 'What', from: 'From', until: 'Until', pack: (n, calls) => `${n} × ${calls} calls`, quotaOf: n => `${n} calls a second`,
  payment: 'payment', adjustment: 'manual adjustment', licence: 'licence', refunded: 'refunded', keys: 'Keys', expires: 'Expires', lastUsed: 'Last used', never: 'not known',
  statement: 'Statement so far', provisional: 'provisional', fixed: 'fixed', dueAt: 'Due at settlement', paid: 'Paid when ordered', billable: 'Billable', postpaid: 'Post-paid calls', recent: 'Newest refusals',
  elsewhere: 'The bills are made by the collector, from the calls of all gates.', removed: 'The files do not have this account any more.', lookUp: 'Look up', explain: 'Why a call was not let through',
  explainHint: 'The request id is in the answer’s X-Request-Id, or in the vendor’s RequestId.', nothing: 'nothing', title: 'Title', status: 'Status', nextStart: 'Next start', nthNewest: 'Start that held it up',
  peer: 'From', filesChanged: 'The files have changed since.', version: 'Version', notFound: 'There is no such page.',
};

const CHINESE = {
  skip: '跳到正文', now: '实时', accounts: '账号', decisions: '拒绝原因', language: '语言', theme: '主题',
  auto: '跟随系统', light: '浅色', dark: '深色', yes: '是', no: '否', asTable: '以表格显示(5 分钟均值)', at: '时间',
  connected: '实时', away: '网关没有响应,正在重试。',
  tokenWanted: '此监听端口需要管理令牌。', tokenWrong: '管理令牌不正确。', token: '管理令牌', enter: '进入',
  tokenKept: '令牌只保存到本标签页关闭,并且只发送给此监听端口。',
  admitted: '放行', throttled: '限流', refused: '拒绝', perSecond: '次/秒', pending: '待判定', inFlight: '处理中',
  connections: '连接数', inArrears: '欠费账号', calls: '每秒调用', overhead: '网关耗时', upstream: '上游',
  upstreamTime: '上游耗时', half: 'p50', most: 'p99', minute: '最近一分钟',
  sinceStart: '启动以来', process: '进程', state: '状态', since: '自', replica: '副本', generation: '配置代次', digest: '文件摘要',
  lastReload: '上次重载已生效', restart: '有设置待重启生效', clock: '系统时钟可信', reachable: '可以连接',
  ledger: '账本', healthy: '可以写入', records: '最新记录', lastCommit: '最近提交', lag: '等待写入的记录', size: '大小', free: '磁盘剩余',
  days: '按最近一小时,磁盘还可用', daysOf: n => `${n} 天`, longer: '10 年以上', store: '共享存储', up: '有响应', outbox: '发送队列', server: '服务器', trouble: '故障',
  notCollected: '尚未汇总', notSent: '尚未发送', waited: '最早一条已等待', collector: '汇总进程', standing: '汇总进程告知的账号状态', current: '当前可收到',
  stoppedAccounts: '停服账号', sources: '汇总的账本', told: '已告知', watermark: '完整截至', none: '无', alone: '此网关独立判定。', stays: '记录保存在本机。',
  reloads: '最近的重载', outcome: '结果', said: '说明', reloaded: '已重载', unchanged: '无变化', refusedReload: '被拒绝', moreLines: n => `另有 ${n} 行`,
  events: '未送达的事件', type: '类型', failing: '开始失败于', newest: '最近未放行的调用', decision: '判定', reason: '原因', requestId: '请求 ID',
  failed: '失败', ledgerAway: '现在无法读取账本。', account: '账号', action: '接口', key: '密钥',
  search: 'ID 或名称', only: '显示', all: '全部', called: '有调用', withThrottles: '有限流', stopped: '已停服', arrears: '欠费', sort: '排序',
  id: 'ID', name: '名称', used: '窗口占用', descending: '从高到低', found: (n, of) => `${of} 个账号中的 ${n} 个`, rows: (a, b) => `第 ${a} 到 ${b} 个`, before: '上一页', next: '下一页',
  window: '本秒调用 / 配额', month: '本月调用', freeLeft: '免费剩余', packsLeft: '资源包剩余', balance: '余额', due: '本月应付', standingOf: '账号状态', good: '正常',
  per_call: '按调用次数', qps: '按 QPS', free_mode: '免费', violation: '违规停服', arrearsStop: '欠费', useOf: group => `${group} 本秒的调用`,
  lastHour: '最近一小时', noHour: '有调用的账号太多,此账号没有曲线。', soon: '15 秒内会有第一个数据点。',
  quotas: '当前配额', group: '功能组', mode: '计费方式', quota: '每秒配额', inUse: '占用', because: '依据', next_change: '下次变化', toDo: '如何提高',
  orders: '订单', newestOf: (n, of) => `${of} 个中最新的 ${n} 个`, order: '订单号', what: '内容', from: '开始', until: '结束', pack: (n, calls) => `${n} × ${calls} 次`, quotaOf: n => `每秒 ${n} 次`,
  payment: '充值', adjustment: '人工调整', licence: '授权', refunded: '已退款', keys: '密钥', expires: '到期', lastUsed: '最近使用', never: '未知',
  statement: '本月账单(截至目前)', provisional: '暂估', fixed: '已出账', dueAt: '应付金额', paid: '下单时已付', billable: '计费', postpaid: '后付费调用', recent: '最近未放行的调用',
  elsewhere: '账单由汇总进程根据所有网关的调用生成。', removed: '配置文件中已没有此账号。', lookUp: '查询', explain: '为什么一次调用没有放行',
  explainHint: '请求 ID 在应答的 X-Request-Id 中,或在厂商格式的 RequestId 中。', nothing: '无', title: '标题', status: '状态码', nextStart: '下次可开始', nthNewest: '占用名额的开始时间',
  peer: '来源', filesChanged: '此后配置文件有变化。', version: '版本', notFound: '没有这个页面。',
};

const ALL = { en: ENGLISH, 'zh-CN': CHINESE };
const KEPT = 'tollgate.language';
let chosen = localStorage.getItem(KEPT);
if (!(chosen in ALL)) chosen = navigator.language.startsWith('zh') ? 'zh-CN' : 'en';

export const language = () => chosen;

export function setLanguage(to) {
  if (!(to in ALL)) return;
  chosen = to;
  localStorage.setItem(KEPT, to);
}

/** A word in the chosen language, with what stands in it. */
export function word(name, ...values) {
  const found = ALL[chosen][name];
  return typeof found === 'function' ? found(...values) : found;
}

/** The names of both lists, so that a test can see that neither lacks one. */
export const names = () => [Object.keys(ENGLISH), Object.keys(CHINESE)];

/** How an account is charged. */
export const ofMode = mode => word(mode === 'free' ? 'free_mode' : mode);

/** Writes the words of the page's frame. */
export function writeFrame() {
  document.documentElement.lang = chosen;
  for (const element of document.querySelectorAll('[data-word]')) element.textContent = word(element.dataset.word);
}
