//! The section `events`: where events go, by which keys they are signed, and which of them are
//! told.
//!
//! Owns what a signing secret looks like (the Standard Webhooks specification). Must never put one
//! into a message.

use crate::config::reader::Item;
use crate::config::settings::addresses::webhook;
use crate::config::settings::section::Section;
use crate::config::settings::{EventSettings, SigningKey, WebhookUrl};
use crate::config::yaml::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// What a signing secret begins with.
const PREFIX: &str = "whsec_";
/// The bytes that a signing key may have, by the specification.
const KEY_BYTES: RangeInclusive<usize> = 24..=64;

pub(in crate::config) fn events(item: Item<'_>) -> Option<EventSettings> {
    let mut fields = Section::open(item)?;
    let webhook = fields.value("webhook", secure_webhook);
    let secrets = fields.value("secret", secrets);
    let balance_below = fields.optional("balance_below", Item::price);
    let pack_expiring = fields.time_or_none("pack_expiring");
    let quota_ending = fields.time("quota_ending");
    fields.close();
    Some(EventSettings {
        webhook: webhook?,
        secrets: secrets?,
        balance_below: balance_below?,
        pack_expiring: pack_expiring?,
        quota_ending: quota_ending?,
    })
}

/// What is told of customers does not travel in clear text.
fn secure_webhook(item: Item<'_>) -> Option<WebhookUrl> {
    let webhook = webhook(item)?;
    let is_near = webhook.host == "localhost"
        || webhook
            .host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    if !webhook.tls && !is_near {
        return item.refuse(format!(
            "{webhook} would get what is told of customers in clear text: use https, or a relay on this machine"
        ));
    }
    Some(webhook)
}

/// One secret, or two while receivers change from one to the other.
fn secrets(item: Item<'_>) -> Option<Vec<SigningKey>> {
    let Value::List(_) = &item.node.value else {
        return Some(vec![secret(item)?]);
    };
    let keys = item.each(secret)?;
    if !(1..=2).contains(&keys.len()) {
        return item.refuse(format!(
            "{} secrets: write one, or two during a rotation",
            keys.len()
        ));
    }
    Some(keys)
}

fn secret(item: Item<'_>) -> Option<SigningKey> {
    let text = item.secret()?;
    let key = text
        .expose_secret()
        .strip_prefix(PREFIX)
        .and_then(|text| STANDARD.decode(text).ok())
        .filter(|key| KEY_BYTES.contains(&key.len()));
    match key {
        Some(key) => Some(key.into()),
        None => item.refuse(
            "is no signing secret: write whsec_ and 24 to 64 random bytes in base64, as `echo \"whsec_$(openssl rand -base64 32)\"` makes it",
        ),
    }
}
