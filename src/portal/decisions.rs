//! `GET /v1/decisions/ID`: why a call of the account was not let through.
//!
//! Must never let an account learn whether a call of another one had this id.

use crate::model::RequestId;
use crate::portal::form::Said;
use crate::portal::front::{Portal, Question};
use crate::proxy::{BadQuestion, Refusal};

impl Portal {
    /// Answers from what the workers keep of their refusals.
    pub(super) async fn decision(&self, question: &Question<'_>) -> Result<Said, Refusal> {
        let asked = question.asked.part.as_deref();
        let id = asked.or_else(|| question.parameters.get("requestid"));
        let unknown = Refusal::Question(BadQuestion::NoDecision);
        let id = id.and_then(RequestId::parse).ok_or(unknown.clone())?;
        let place = self.place()?;
        let (shared, account) = (self.shared().clone(), question.account.id.clone());
        // The rings are long, and this thread has calls to serve.
        let found = tokio::task::spawn_blocking(move || {
            let _place = place;
            shared.explain_own(id, &account)
        });
        let found = found.await.map_err(|_| Refusal::CannotAnswer)?;
        Ok(Said::json(found.ok_or(unknown)?.to_string()))
    }
}
