//! `tollgate price`: a quote by the catalogue.
//!
//! Owns the forms of a quote. Must never compute a price: the rules of [`crate::billing`] do.

use crate::billing::{Goods, Quote, list_price};
use crate::cli::flags_price::PriceFlags;
use crate::cli::output::{AnswerFormat, load, print};
use crate::config::{Catalog, Charging};
use crate::model::{GroupId, Period};
use anyhow::bail;
use serde_json::{Value, json};

/// Prints what an order costs by the catalogue (R11, R15).
///
/// # Errors
/// When the catalogue does not sell it, when the configuration has mistakes, or standard output
/// cannot be written.
pub fn price(flags: PriceFlags) -> anyhow::Result<()> {
    let config = load(&flags.config.config)?;
    let (group, goods, format) = flags.order.goods();
    let quote = quote(&config.catalog, &group, goods)?;
    let currency = &config.catalog.currency;
    let Quote {
        unit_price,
        amount,
        how,
        ..
    } = &quote;
    let mut document = json!({
        "group": group, "amount": amount, "currency": currency, "unit_price": unit_price, "how": how,
    });
    add_goods(&mut document, goods);
    print(|out| match format {
        AnswerFormat::Json => writeln!(out, "{document}"),
        AnswerFormat::Table => {
            writeln!(out, "{amount} {currency}")?;
            writeln!(out, "{how} (unit price {unit_price})")
        }
    })
}

fn quote(catalog: &Catalog, group: &GroupId, goods: Goods) -> anyhow::Result<Quote> {
    let Some(known) = catalog.groups.iter().find(|known| known.id == *group) else {
        let ids: Vec<&str> = catalog.groups.iter().map(|g| g.id.as_str()).collect();
        bail!(
            "no group {group} in the catalogue: it has {}",
            ids.join(", ")
        );
    };
    let Charging::Paid { per_call, qps } = &known.charging else {
        bail!("{group} is free: there is nothing to buy (R2)");
    };
    Ok(list_price(per_call, qps, goods)?)
}

/// Adds the ordered numbers, each under the name of its flag.
fn add_goods(document: &mut Value, goods: Goods) {
    match goods {
        Goods::Packs { calls, count } => {
            document["calls"] = json!(calls);
            document["count"] = json!(count);
        }
        Goods::Qps { qps, period } => {
            document["qps"] = json!(qps);
            match period {
                Period::Months(months) => document["months"] = json!(months),
                Period::Days(days) => document["days"] = json!(days),
            }
        }
    }
}
