//! Advice: what was found, why it matters, where it is mended.

use axum::Json;
use axum::extract::State;
use keyholder_broker::{Advice, Severity};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::App;
use super::super::caller::Authenticated;
use super::super::problem::ApiError;

/// All advice, the most pressing first.
#[derive(Serialize, JsonSchema)]
pub struct AdviceList {
    items: Vec<AdviceBody>,
}

/// A piece of advice.
#[derive(Serialize, JsonSchema)]
pub struct AdviceBody {
    /// The rule that found it, a stable word.
    rule: &'static str,
    /// `high` (today), `medium` (this week) or `low` (when there is time).
    severity: &'static str,
    on: AdviceOn,
    /// What was found.
    text: String,
    /// Why it matters.
    reason: &'static str,
    /// Who recommends it.
    source: &'static str,
    /// What is done about it.
    remedy: &'static str,
    /// The console's page where that is done, a path of the public URL.
    page: String,
}

/// What a piece of advice is about.
#[derive(Serialize, JsonSchema)]
pub struct AdviceOn {
    /// `connection`, `integration`, `key`, `data source` or `installation`.
    kind: &'static str,
    /// Null for the installation.
    id: Option<String>,
    /// Null for the installation.
    name: Option<String>,
}

pub(crate) async fn advice(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
) -> Result<Json<AdviceList>, ApiError> {
    let found = app.broker.advice(&caller).await?;
    Ok(Json(AdviceList { items: found.into_iter().map(AdviceBody::from).collect() }))
}

impl From<Advice> for AdviceBody {
    fn from(it: Advice) -> Self {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Self {
            rule: it.rule,
            severity: severity(it.severity),
            on: AdviceOn { kind: it.on.what(), id: given(it.on.id()), name: given(it.on.name()) },
            text: it.text,
            reason: it.reason,
            source: it.source,
            remedy: it.link,
            page: it.href,
        }
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::High => "high",
        Severity::Medium => "medium",
        Severity::Low => "low",
    }
}
