//! The words of the page of a statement, in two languages.

use crate::model::Mode;

/// A language of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Language {
    English,
    Chinese,
}

/// The words of one language.
pub(super) struct Words {
    /// The language, as HTML names it.
    pub(super) tag: &'static str,
    pub(super) statement: &'static str,
    pub(super) provisional: &'static str,
    pub(super) fixed: &'static str,
    pub(super) account: &'static str,
    pub(super) month: &'static str,
    pub(super) period: &'static str,
    pub(super) counted_until: &'static str,
    pub(super) fixed_at: &'static str,
    pub(super) records_up_to: &'static str,
    pub(super) summary: &'static str,
    pub(super) due: &'static str,
    pub(super) paid_when_ordered: &'static str,
    pub(super) calls: &'static str,
    pub(super) action: &'static str,
    pub(super) mode: &'static str,
    pub(super) billable: &'static str,
    pub(super) key: &'static str,
    pub(super) by_key: &'static str,
    pub(super) yes: &'static str,
    pub(super) free: &'static str,
    pub(super) covered: &'static str,
    pub(super) covered_by: &'static str,
    pub(super) free_pack: &'static str,
    pub(super) postpaid: &'static str,
    pub(super) size: &'static str,
    pub(super) used_before: &'static str,
    pub(super) used: &'static str,
    pub(super) left: &'static str,
    pub(super) expires: &'static str,
    pub(super) lines: &'static str,
    pub(super) what: &'static str,
    pub(super) unit_price: &'static str,
    pub(super) amount: &'static str,
    pub(super) order: &'static str,
    pub(super) at: &'static str,
    pub(super) late: &'static str,
    pub(super) on_no_statement: &'static str,
    pub(super) computed: &'static str,
    pub(super) more: &'static str,
    pub(super) nothing: &'static str,
    modes: [&'static str; 3],
}

impl Language {
    /// Its words.
    pub(super) const fn words(self) -> &'static Words {
        match self {
            Self::English => &ENGLISH,
            Self::Chinese => &CHINESE,
        }
    }
}

impl Words {
    /// How an account is charged.
    pub(super) fn of_mode(&self, mode: Mode) -> &'static str {
        let [per_call, qps, free] = self.modes;
        match mode {
            Mode::PerCall => per_call,
            Mode::Qps => qps,
            Mode::Free => free,
        }
    }
}

const ENGLISH: Words = Words {
    tag: "en",
    statement: "Statement",
    provisional: "Provisional: the month is not fixed yet, and every figure may change.",
    fixed: "Fixed: nothing of it changes any more.",
    account: "Account",
    month: "Month",
    period: "From, until",
    counted_until: "Calls counted until",
    fixed_at: "Fixed at",
    records_up_to: "Records counted up to",
    summary: "Summary",
    due: "Due at settlement",
    paid_when_ordered: "Paid when ordered",
    calls: "Calls",
    action: "Action",
    mode: "Charged",
    billable: "Billable",
    key: "Key",
    by_key: "Calls by key",
    yes: "yes",
    free: "free of charge",
    covered: "How the billable calls were covered",
    covered_by: "Covered by",
    free_pack: "Free pack",
    postpaid: "Post-paid",
    size: "Size",
    used_before: "Used before",
    used: "Used",
    left: "Left",
    expires: "Expires",
    lines: "Due at settlement",
    what: "What",
    unit_price: "Unit price",
    amount: "Amount",
    order: "Order",
    at: "At",
    late: "Late calls of earlier months among them",
    on_no_statement: "Calls on no statement, for which nothing is due",
    computed: "How it was computed",
    more: "Further details",
    nothing: "Nothing was called or bought in this month.",
    modes: ["by the call", "by QPS", "free"],
};

const CHINESE: Words = Words {
    tag: "zh-CN",
    statement: "账单",
    provisional: "暂估:本月尚未出账,所有数字都可能变化。",
    fixed: "已出账:内容不再变化。",
    account: "账号",
    month: "账期",
    period: "起止时间",
    counted_until: "调用统计截至",
    fixed_at: "出账时间",
    records_up_to: "统计到的记录序号",
    summary: "汇总",
    due: "应付金额",
    paid_when_ordered: "下单时已付",
    calls: "调用次数",
    action: "接口",
    mode: "计费方式",
    billable: "是否计费",
    key: "密钥",
    by_key: "按密钥统计",
    yes: "是",
    free: "免费",
    covered: "计费调用的抵扣",
    covered_by: "抵扣来源",
    free_pack: "免费额度",
    postpaid: "后付费",
    size: "规格",
    used_before: "此前已用",
    used: "本月使用",
    left: "剩余",
    expires: "到期时间",
    lines: "应付明细",
    what: "项目",
    unit_price: "单价",
    amount: "金额",
    order: "订单号",
    at: "时间",
    late: "其中属于以前月份的迟到调用",
    on_no_statement: "不在任何账单上、不收费的调用",
    computed: "计算过程",
    more: "其他信息",
    nothing: "本月没有调用,也没有购买。",
    modes: ["按调用次数", "按 QPS", "免费"],
};
