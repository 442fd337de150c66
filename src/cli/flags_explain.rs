//! The flags of `tollgate explain`.

use crate::cli::config_flag::ConfigFlag;
use crate::cli::output::AnswerFormat;
use crate::model::RequestId;
use clap::Args;

/// The flags of `tollgate explain`.
#[derive(Args)]
pub struct ExplainFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// The id of the call: `X-Request-Id` of its answer, or `RequestId` of the envelope.
    #[arg(value_name = "ID", value_parser = request_id)]
    pub(crate) id: RequestId,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
    pub(crate) format: AnswerFormat,
}

fn request_id(text: &str) -> Result<RequestId, String> {
    RequestId::parse(text).ok_or_else(|| "a request id is a UUID, as in X-Request-Id".to_owned())
}
