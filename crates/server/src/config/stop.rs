//! `KEYHOLDER_STOP_AT=point[:nth]`: in debug builds, where the process stands still until a test kills it. In release builds there is nothing of it, not even
//! the name of the variable.

use std::path::Path;

use keyholder_broker::points::Points;

use super::ConfigError;

#[cfg(not(debug_assertions))]
pub(super) fn stop_at(_: &dyn Fn(&str) -> Option<String>, _: &Path) -> Result<Points, ConfigError> {
    Ok(Points::default())
}

/// Points at which the task that reaches the named one for the nth time writes its name to `stopped-at` in the data folder, and stands still.
#[cfg(debug_assertions)]
pub(super) fn stop_at(environment: &dyn Fn(&str) -> Option<String>, data_dir: &Path) -> Result<Points, ConfigError> {
    use std::sync::atomic::{AtomicU64, Ordering};

    use keyholder_broker::points::Verdict;

    const VARIABLE: &str = "KEYHOLDER_STOP_AT";
    let Some(written) = environment(VARIABLE) else { return Ok(Points::default()) };
    let (name, nth) = written.split_once(':').unwrap_or((&written, "1"));
    let known = Points::NAMES.into_iter().find(|known| *known == name);
    let nth = nth.parse::<u64>().ok().filter(|nth| *nth > 0);
    let (Some(point), Some(nth)) = (known, nth) else {
        return Err(ConfigError {
            key: "stop_at",
            place: VARIABLE.to_owned(),
            reason: format!("\"{written}\" is not a point, or not a point and a number"),
            remedy: format!("write it as in claimed or claimed:3; the points are {}", Points::NAMES.join(", ")),
        });
    };
    let (reached, mark) = (AtomicU64::new(0), data_dir.join("stopped-at"));
    Ok(Points::with(move |here| {
        if here != point || reached.fetch_add(1, Ordering::Relaxed) + 1 != nth {
            return Verdict::Go;
        }
        match std::fs::write(&mark, point).and_then(|()| std::fs::File::open(&mark)?.sync_all()) {
            Ok(()) => Verdict::Stop,
            // The test waits for the file: it must hear why there is none.
            Err(error) => Verdict::Fail(error),
        }
    }))
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn a_point_that_does_not_exist_is_refused() {
        let stop_at = |text: &str| stop_at(&|_| Some(text.to_owned()), Path::new("nowhere"));
        for good in ["claimed", "store.write:17"] {
            stop_at(good).unwrap();
        }
        for bad in ["claim", "claimed:", "claimed:0", "claimed:x", ":1"] {
            let error = stop_at(bad).unwrap_err();
            assert!(error.reason.contains(bad) && error.remedy.contains("escrow.sync"), "{error}");
        }
    }
}
