//! `keyholder provider test`: a definition's methods run for real, in this process, against the sandbox in the part of the provider.

use std::path::Path;

use keyholder_sandbox::play::Exchange;
use serde_json::{Value, json};

use super::error::{CliError, Result};
use super::folder::Folder;
use super::output::{Out, Tint, clean};
use crate::rehearsal::{Rehearsal, Report};

/// Rehearses each of these files (or ids of the catalogue), with all their methods or with one.
pub(super) async fn test(out: &Out, definitions: &[String], method: Option<&str>) -> Result {
    let folder = Folder::make("rehearsal")?;
    let mut stage = Rehearsal::open(folder.path()).await.map_err(CliError::Failed)?;
    let is_brief = definitions.len() > 1;
    let mut reports = Vec::new();
    let mut is_sound = true;
    let (casts, mistakes) = casts(&stage, definitions).await;
    for mistake in &mistakes {
        out.line(format!("{} {}", out.paint("✗", Tint::Red), clean(mistake)))?;
    }
    is_sound &= mistakes.is_empty();
    for cast in casts {
        let wanted = match method {
            Some(method) => {
                Some(cast.definition.method(Some(method)).map_err(|e| CliError::Usage(e.to_string()))?.name.clone())
            }
            None => None,
        };
        for method in cast.definition.methods.iter().filter(|it| wanted.as_ref().is_none_or(|name| *name == it.name)) {
            let mut report = stage.rehearse(&cast.definition, method, &cast.part).await;
            report.provider.clone_from(&cast.name);
            is_sound &= report.ok;
            if !out.json {
                show(out, &report, is_brief)?;
            }
            reports.push(report);
        }
    }
    if out.json {
        out.json(&json!({"ok": is_sound, "methods": reports}))?;
    }
    if is_sound { Ok(()) } else { Err(CliError::Said) }
}

/// All that can be read, and why the others can't. A file may extend one that comes after it.
async fn casts(stage: &Rehearsal, definitions: &[String]) -> (Vec<Cast>, Vec<String>) {
    let mut casts = Vec::new();
    let mut left: Vec<&String> = definitions.iter().collect();
    loop {
        let mut failed = Vec::new();
        let before = left.len();
        for name in left {
            match cast(stage, name).await {
                Ok(cast) => casts.push(cast),
                Err(why) => failed.push((name, why)),
            }
        }
        if failed.is_empty() || failed.len() == before {
            return (casts, failed.into_iter().map(|(_, why)| why).collect());
        }
        left = failed.into_iter().map(|(name, _)| name).collect();
    }
}

/// What is rehearsed.
struct Cast {
    /// As people know it: its own id.
    name: String,
    definition: std::sync::Arc<keyholder_provider::Definition>,
    part: Value,
}

/// A file is read; anything else is an id of the catalogue.
async fn cast(stage: &Rehearsal, name: &str) -> std::result::Result<Cast, String> {
    let (id, shown) = if name.contains('/') || Path::new(name).extension().is_some() || Path::new(name).exists() {
        let text = std::fs::read_to_string(name).map_err(|error| format!("{name}: {error}"))?;
        stage.add(name, &text).await?
    } else {
        (name.to_owned(), name.to_owned())
    };
    let (definition, part) = stage.definition(&id)?;
    Ok(Cast { name: shown, definition, part })
}

fn show(out: &Out, report: &Report, is_brief: bool) -> Result {
    let mark = |ok: bool| if ok { out.paint("✓", Tint::Green) } else { out.paint("✗", Tint::Red) };
    out.line(format!("{} {} {}", mark(report.ok), out.paint(&report.provider, Tint::Bold), report.method))?;
    for step in report.steps.iter().filter(|step| !is_brief || !step.ok) {
        out.line(format!("  {} {:<8} {}", mark(step.ok), step.name, clean(&step.message)))?;
        step.exchanges.iter().try_for_each(|exchange| show_exchange(out, exchange))?;
    }
    if is_brief { Ok(()) } else { out.line("") }
}

fn show_exchange(out: &Out, exchange: &Exchange) -> Result {
    let Exchange { phase, method, url, status, .. } = exchange;
    out.line(format!("      {phase:<13} {method} {url} → {status}"))?;
    for line in &exchange.sent {
        out.line(out.paint(&format!("        {}", clean(line)), Tint::Dim))?;
    }
    if !exchange.reply.is_null() && exchange.phase != "discover" {
        out.line(out.paint(&format!("        → {}", clean(&exchange.reply.to_string())), Tint::Dim))?;
    }
    for complaint in &exchange.complaints {
        out.line(format!("        {} {}", out.paint("✗", Tint::Red), clean(&complaint.to_string())))?;
    }
    Ok(())
}
