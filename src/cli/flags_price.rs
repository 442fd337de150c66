//! The flags of `tollgate price`.

use crate::billing::Goods;
use crate::cli::config_flag::ConfigFlag;
use crate::cli::output::AnswerFormat;
use crate::cli::values::{group_id, up_to};
use crate::config;
use crate::model::{GroupId, Period};
use clap::{Args, Subcommand};

/// The flags of `tollgate price`.
#[derive(Args)]
pub struct PriceFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    #[command(subcommand)]
    pub(crate) order: Order,
}

/// The order that `tollgate price` quotes.
#[derive(Subcommand)]
pub(crate) enum Order {
    /// Quote prepaid packs of calls (R11).
    #[command(
        after_help = "Example:\n  tollgate price packs --group portrait-segmentation --calls 10000 --count 2"
    )]
    Packs {
        /// The group of the catalogue.
        #[arg(long, value_name = "GROUP", value_parser = group_id)]
        group: GroupId,
        /// The size of a pack, in calls.
        #[arg(long, value_name = "N")]
        calls: u64,
        /// The number of packs.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = up_to(config::MAX_PACKS))]
        count: u32,
        /// How to print the quote.
        #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
        format: AnswerFormat,
    },
    /// Quote a quota in calls per second, for months or for days (R15).
    #[command(
        after_help = "Examples:\n  tollgate price qps --group portrait-segmentation --qps 10 --months 1\n  tollgate price qps --group portrait-segmentation --qps 50 --days 3 --format json"
    )]
    Qps {
        /// The group of the catalogue.
        #[arg(long, value_name = "GROUP", value_parser = group_id)]
        group: GroupId,
        /// The quota, in calls per second.
        #[arg(long, value_name = "N", value_parser = up_to(config::MAX_QPS))]
        qps: u32,
        #[command(flatten)]
        period: PeriodFlags,
        /// How to print the quote.
        #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
        format: AnswerFormat,
    },
}

/// For how long a quota is bought.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PeriodFlags {
    /// For so many calendar months.
    #[arg(long, value_name = "N", value_parser = up_to(config::MAX_MONTHS))]
    months: Option<u32>,
    /// For so many days.
    #[arg(long, value_name = "N", value_parser = up_to(config::MAX_DAYS))]
    days: Option<u32>,
}

impl Order {
    /// The group, the goods in the terms of the rules, and how to print the quote.
    pub(crate) fn goods(self) -> (GroupId, Goods, AnswerFormat) {
        match self {
            Self::Packs {
                group,
                calls,
                count,
                format,
            } => (group, Goods::Packs { calls, count }, format),
            Self::Qps {
                group,
                qps,
                period,
                format,
            } => {
                let period = match period.months {
                    Some(months) => Period::Months(months),
                    // The flags' group is required: without months there are days.
                    None => Period::Days(period.days.unwrap_or(0)),
                };
                (group, Goods::Qps { qps, period }, format)
            }
        }
    }
}
