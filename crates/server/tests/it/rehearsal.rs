//! Every definition against the sandbox in the part of the provider.

use keyholder::rehearsal::Rehearsal;

/// How many brokers rehearse at the same time.
const STAGES: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn every_method_of_every_definition_connects_renews_calls_and_is_revoked() {
    let first = tempfile::tempdir().unwrap();
    let all = Rehearsal::open(first.path()).await.unwrap().provider_ids();
    let only = std::env::var("ONLY").ok();
    let shares = (0..STAGES).map(|share| {
        let ids: Vec<String> = all.iter().skip(share).step_by(STAGES).cloned().collect();
        let only = only.clone();
        tokio::spawn(async move {
            let folder = tempfile::tempdir().unwrap();
            let mut stage = Rehearsal::open(folder.path()).await.unwrap();
            let mut failures = Vec::new();
            for id in ids.into_iter().filter(|id| only.as_ref().is_none_or(|only| only == id)) {
                let (definition, part) = stage.definition(&id).unwrap();
                for method in &definition.methods {
                    let failure = stage.rehearse(&definition, method, &part).await.failure();
                    failures.extend(failure);
                }
            }
            failures
        })
    });
    let mut failures = Vec::new();
    for share in shares.collect::<Vec<_>>() {
        failures.extend(share.await.unwrap());
    }
    failures.sort();
    assert!(failures.is_empty(), "{} methods failed:\n{}", failures.len(), failures.join("\n"));
}
