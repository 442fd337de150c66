//! An answer to a client, before it is known on which connection it goes out.

use crate::http::{Fields, HeadWriter};
use http::StatusCode;

/// An answer, as far as it does not depend on its connection.
pub struct Answer<B> {
    pub(super) status: StatusCode,
    pub(super) lines: HeadWriter,
    pub(super) has_date: bool,
    pub(super) closes: bool,
    pub(super) body: AnswerBody<B>,
}

/// Its body.
pub(crate) enum AnswerBody<B> {
    /// Made here.
    Own(Vec<u8>),
    /// Piece by piece, as it comes.
    Passing(B),
}

impl<B> Answer<B> {
    /// An answer that is made here.
    pub fn own(status: StatusCode, body: Vec<u8>) -> Self {
        Self::new(status, AnswerBody::Own(body))
    }

    /// An answer whose body comes piece by piece.
    pub fn streamed(status: StatusCode, body: B) -> Self {
        Self::new(status, AnswerBody::Passing(body))
    }

    fn new(status: StatusCode, body: AnswerBody<B>) -> Self {
        Self {
            status,
            lines: HeadWriter::new(Vec::with_capacity(512)),
            has_date: false,
            closes: false,
            body,
        }
    }

    /// An answer of the upstream: those of its fields for which `passes` holds.
    pub fn passing(
        status: StatusCode,
        fields: &Fields,
        passes: impl Fn(&[u8]) -> bool,
        body: B,
    ) -> Self {
        let mut answer = Self::streamed(status, body);
        for field in fields.iter().filter(|field| passes(field.name())) {
            answer.has_date |= field.name() == b"date";
            answer.lines.field(field);
        }
        answer
    }

    /// Its status, its fields, whether a date is among them, and its body.
    pub(crate) fn into_parts(self) -> (StatusCode, HeadWriter, bool, AnswerBody<B>) {
        (self.status, self.lines, self.has_date, self.body)
    }

    /// Whether nothing may follow it on its connection.
    pub(crate) fn closes(&self) -> bool {
        self.closes
    }

    /// Whether its body comes piece by piece and is such a one.
    pub fn is_passing(&self, is_such: impl FnOnce(&B) -> bool) -> bool {
        match &self.body {
            AnswerBody::Own(_) => false,
            AnswerBody::Passing(body) => is_such(body),
        }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The bytes of a body that is made here, or the body that comes piece by piece.
    pub fn body_mut(&mut self) -> Result<usize, &mut B> {
        match &mut self.body {
            AnswerBody::Own(body) => Ok(body.len()),
            AnswerBody::Passing(body) => Err(body),
        }
    }

    /// Its fields, but for those that frame it, its date, and what becomes of the connection.
    pub fn lines(&mut self) -> &mut HeadWriter {
        &mut self.lines
    }

    /// Says that nothing may follow it.
    pub fn close(&mut self) {
        self.closes = true;
    }
}
