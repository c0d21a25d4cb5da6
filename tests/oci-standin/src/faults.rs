//! Faults that a test asks for while the service runs. This module reads them from a file and says which call is hit.
//!
//! The folder `control/<database>` holds `faults`, which a test replaces as a whole (write another file and rename it).
//! Each line is one fault, words with values:
//!
//! `id=7 on=OCIStmtExecute text=process_logs module=logs nth=3 times=1 do=ora:1653`
//!
//! `id` is a name of the test's choice under which calls are counted; `on` the OCI function, `*` for all; `text` a part of
//! the statement (in any case) and `module` of the session's `module/action`, both optional; `nth` the first call that is
//! hit (1); `times` how many are hit (without end where absent). What is done: `ora:N` the call fails with ORA-N and does
//! nothing; `hang` it does nothing until the call timeout, a break, or the end of the fault; `lose` the line is cut before
//! the call; `lose-after` the call does its work, then the line is cut and the answer lost; `warn:N` it succeeds with the
//! warning ORA-N; `delay:MS` it starts later. Every hit adds the line `id=7 on=OCIStmtExecute` to the file `fired`.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Error(i32),
    Hang,
    Lose,
    LoseAfter,
    Warning(i32),
    Delay(Duration),
}

#[derive(Debug, Clone)]
struct Fault {
    id: String,
    on: String,
    text: String,
    module: String,
    nth: u64,
    times: u64,
    effect: Effect,
}

#[derive(Debug, Default)]
struct Plan {
    /// Inode, size and time of the file that was read.
    stamp: (u64, u64, i64, i64),
    faults: Vec<Fault>,
    calls: HashMap<String, u64>,
}

#[derive(Debug)]
pub(crate) struct Faults {
    file: PathBuf,
    fired: PathBuf,
    plan: Mutex<Plan>,
}

impl Faults {
    pub(crate) fn steered_by(folder: &Path) -> Self {
        let (file, fired) = (folder.join("faults"), folder.join("fired"));
        Self { file, fired, plan: Mutex::default() }
    }

    /// What happens to this call. `text` and `session` are what the statement and the session are called.
    pub(crate) fn hit(&self, symbol: &str, text: &str, session: &str) -> Vec<Effect> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_again(&mut plan);
        let mut effects = Vec::new();
        let Plan { faults, calls, .. } = &mut *plan;
        for fault in faults {
            if !fault.concerns(symbol, text, session) {
                continue;
            }
            let call = calls.entry(fault.id.clone()).or_default();
            *call += 1;
            if *call >= fault.nth && *call - fault.nth < fault.times {
                effects.push(fault.effect);
                self.report(&format!("id={} on={symbol}\n", fault.id));
            }
        }
        effects
    }

    /// Whether any fault lets calls of this kind hang still.
    pub(crate) fn still_hangs(&self, symbol: &str) -> bool {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_again(&mut plan);
        let mut faults = plan.faults.iter();
        faults.any(|fault| fault.effect == Effect::Hang && (fault.on == "*" || fault.on == symbol))
    }

    fn read_again(&self, plan: &mut Plan) {
        let stamp = fs::metadata(&self.file).map_or((0, 0, 0, 0), |about| {
            (about.ino(), about.size(), about.mtime(), about.mtime_nsec())
        });
        if stamp == plan.stamp {
            return;
        }
        plan.stamp = stamp;
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        plan.faults = text.lines().filter(|line| !line.trim().is_empty()).map(parsed).collect();
    }

    fn report(&self, line: &str) {
        let file = OpenOptions::new().create(true).append(true).open(&self.fired);
        // A test that waits for the line fails when it does not come; there is nobody else to tell.
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

impl Fault {
    fn concerns(&self, symbol: &str, text: &str, session: &str) -> bool {
        let on = self.on == "*" || self.on == symbol;
        let within = |part: &str, whole: &str| {
            part.is_empty() || whole.to_lowercase().contains(&part.to_lowercase())
        };
        on && within(&self.text, text) && within(&self.module, session)
    }
}

/// A line that nobody understands stops the test program: a fault that is not injected proves nothing.
fn parsed(line: &str) -> Fault {
    let mut fault = Fault {
        id: line.to_owned(),
        on: "*".to_owned(),
        text: String::new(),
        module: String::new(),
        nth: 1,
        times: u64::MAX,
        effect: Effect::Hang,
    };
    let mut does = false;
    for word in line.split_whitespace() {
        let understood = match word.split_once('=') {
            Some(("id", value)) => set(&mut fault.id, Some(value.to_owned())),
            Some(("on", value)) => set(&mut fault.on, Some(value.to_owned())),
            Some(("text", value)) => set(&mut fault.text, Some(value.to_owned())),
            Some(("module", value)) => set(&mut fault.module, Some(value.to_owned())),
            Some(("nth", value)) => set(&mut fault.nth, value.parse().ok()),
            Some(("times", value)) => set(&mut fault.times, value.parse().ok()),
            Some(("do", value)) => {
                does = true;
                set(&mut fault.effect, effect(value))
            }
            _ => false,
        };
        assert!(understood, "the stand-in does not understand {word:?} of the fault {line:?}");
    }
    assert!(does, "the fault {line:?} says not what it does");
    fault
}

fn set<T>(place: &mut T, value: Option<T>) -> bool {
    value.map(|value| *place = value).is_some()
}

fn effect(text: &str) -> Option<Effect> {
    Some(match text.split_once(':') {
        Some(("ora", number)) => Effect::Error(number.parse().ok()?),
        Some(("warn", number)) => Effect::Warning(number.parse().ok()?),
        Some(("delay", ms)) => Effect::Delay(Duration::from_millis(ms.parse().ok()?)),
        None if text == "hang" => Effect::Hang,
        None if text == "lose" => Effect::Lose,
        None if text == "lose-after" => Effect::LoseAfter,
        _ => return None,
    })
}
