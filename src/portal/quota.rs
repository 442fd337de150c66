//! `GET /v1/quota`: a customer sees its own quota, live, with its own credential.
//!
//! Owns this one answer. Must never take quota or make a record, show another account, or keep a
//! worker waiting for the disk.

use crate::billing::balances::Balances;
use crate::billing::books::Books;
use crate::http::h1::{Answer, RequestHead};
use crate::http::names::X_REQUEST_ID;
use crate::ledger::{KeysUsed, Reader};
use crate::model::AccountId;
use crate::portal::front::Portal;
use crate::proxy::admission::Now;
use crate::proxy::identity::api_key::api_key;
use crate::proxy::identity::{CredentialFailure, tc3};
use crate::proxy::policy::KnownAccount;
use crate::proxy::{Refusal, Relay, RequestContext};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

impl Portal {
    /// Answers from the limiters that decide and from the ledger's totals.
    pub(super) async fn quota(
        &self,
        context: &mut RequestContext<'_>,
        head: &RequestHead,
    ) -> Result<Answer<Relay>, Refusal> {
        let shared = self.proxy.shared();
        if head.method != Method::GET {
            return Err(Refusal::Method {
                allowed: vec![Method::GET],
            });
        }
        let account = self.own_account(context, head)?;
        let place = self
            .questions
            .clone()
            .try_acquire_owned()
            .map_err(|_| Refusal::LedgerTrouble)?;
        let catalog = shared.policy.load().catalog.clone();
        let (ledger, sold) = (shared.ledger.path().to_owned(), account.clone());
        let (now, paid_by) = (shared.clock.utc(), shared.paid_by());
        let (balances, keys_used) = tokio::task::spawn_blocking(move || {
            // The reader holds its permit itself, since it goes on when the client has hung up.
            let _place = place;
            let reader = &Reader::open(&ledger).map_err(|error| error.to_string())?;
            let catalog = &catalog;
            let books = Books {
                catalog,
                reader,
                now,
            };
            let balances = books.balances((&**sold).into(), paid_by);
            let balances = balances.map_err(|error| error.to_string())?;
            let keys_used = reader.keys_used(&sold.id, now);
            Ok((balances, keys_used.map_err(|error| error.to_string())?))
        })
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
        .map_err(|error| {
            tracing::error!("cannot read the ledger: {error}");
            Refusal::LedgerTrouble
        })?;
        let body = self
            .describe(&account.id, &balances, &keys_used)
            .ok_or(Refusal::Credential(CredentialFailure::UnknownKey))?;
        let mut answer = Answer::own(StatusCode::OK, body.to_string().into_bytes());
        let lines = answer.lines();
        lines.fixed("content-type: application/json\r\ncache-control: no-store\r\n");
        lines.text(X_REQUEST_ID, context.id_text());
        Ok(answer)
    }

    /// The account whose key the request has, proven and in force. The signature is over an empty
    /// body.
    fn own_account(
        &self,
        context: &mut RequestContext<'_>,
        head: &RequestHead,
    ) -> Result<Arc<KnownAccount>, Refusal> {
        let shared = self.proxy.shared();
        let policy = shared.policy.load();
        let now = shared.clock.utc();
        let unknown = |why| Refusal::Credential(why);
        let key = if let Some(key) = api_key(&head.fields) {
            let digest = key.map_err(Refusal::Credential)?;
            let known = policy.api_key(&digest);
            known.ok_or(unknown(CredentialFailure::UnknownKey))?
        } else {
            let claim = tc3::claim(head, now.seconds(), &policy.catalog.services);
            let claim = claim.map_err(Refusal::Credential)?;
            let known = policy.tc3(claim.secret_id());
            let (known, secret) = known
                .and_then(|known| Some((known, known.secret()?)))
                .ok_or(unknown(CredentialFailure::UnknownId))?;
            let no_body: [u8; 32] = Sha256::digest([]).into();
            claim
                .verify(head, secret, &no_body, &policy.catalog.host_aliases)
                .map_err(Refusal::Credential)?;
            known
        };
        context.proven(key, now)?;
        Ok(key.account().clone())
    }

    /// `None` when the account is gone: another generation may be in force since it was proven, and
    /// an account finds its limiters only by its own generation's operations.
    fn describe(&self, id: &AccountId, balances: &Balances, keys_used: &KeysUsed) -> Option<Value> {
        let shared = self.proxy.shared();
        let policy = shared.policy.load();
        let account = policy.account(id)?;
        let quotas = policy.describe(account, &shared.limiters, Now::read(&shared.clock));
        let services: serde_json::Map<String, Value> = quotas
            .into_iter()
            .map(|(group, limiters)| {
                let limiters: Vec<Value> = limiters
                    .into_iter()
                    .map(|(_, described)| described)
                    .collect();
                let mut described = json!({"quotas": limiters});
                let service = balances
                    .services
                    .iter()
                    .find(|(id, _)| id.as_str() == group);
                if let Some((_, service)) = service {
                    described["month"] = json!({
                        "month": balances.month,
                        "admitted": service.admitted,
                        "billable": service.billable,
                    });
                    described["free_calls"] = json!(service.free_calls);
                    described["packs"] = json!(service.packs);
                    described["notices"] = json!(service.notices);
                }
                (group.to_owned(), described)
            })
            .collect();
        Some(json!({
            "account": id,
            "name": account.name,
            "balance": balances.balance,
            "in_arrears": balances.in_arrears,
            "due_so_far": balances.due_so_far,
            "keys": policy.describe_keys(account, keys_used),
            "services": services,
        }))
    }
}
