//! The real binary as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;

/// A running `keyholder serve`. It is killed when the test ends before it does.
pub struct Server {
    child: Option<Child>,
    pub url: String,
    /// What it had printed until it listened.
    greeting: String,
    streams: Vec<JoinHandle<String>>,
}

/// What a process left behind.
pub struct Ended {
    pub status: ExitStatus,
    /// Standard output and standard error.
    pub printed: String,
}

/// The command with a data folder of its own, and nothing of the environment of whoever runs the tests.
pub fn keyholder(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyholder"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KEYHOLDER_")) {
        command.env_remove(name);
    }
    command.env("KEYHOLDER_DATA_DIR", folder).env("KEYHOLDER_EGRESS_ALLOW", "127.0.0.1").current_dir(folder);
    command
}

/// Runs a command of the command line to its end.
pub fn run(folder: &Path, url: &str, arguments: &[&str]) -> Output {
    keyholder(folder).env("KEYHOLDER_URL", url).args(arguments).stdin(Stdio::null()).output().unwrap()
}

impl Server {
    /// Starts it on a free port and waits until it listens.
    pub fn start(folder: &Path, log: &str) -> Self {
        let mut command = keyholder(folder);
        command.env("KEYHOLDER_LOG", log).env("KEYHOLDER_STOP_DELAY", "0");
        Self::of(command)
    }

    /// As [`Self::start`], with this environment.
    pub fn of(mut command: Command) -> Self {
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = drained(child.stderr.take().unwrap());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut greeting = String::new();
        let url = loop {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap() == 0 {
                let _ = child.kill();
                panic!("it ended before it listened: {:?}\n{greeting}{}", child.wait(), stderr.join().unwrap());
            }
            greeting.push_str(&line);
            if let Some(at) = line.find("http://127.0.0.1:") {
                break line[at..].split_whitespace().next().unwrap().trim_end_matches('/').to_owned();
            }
        };
        Self { child: Some(child), url, greeting, streams: vec![drained(stdout), stderr] }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Asks it to stop as a service manager does, and waits for its end.
    pub fn terminate(self) -> Ended {
        self.signal();
        self.ended()
    }

    /// Asks it to stop.
    pub fn signal(&self) {
        let process = self.pid();
        wait_until_heard(process);
        assert!(Command::new("kill").args(["-TERM", &process.to_string()]).status().unwrap().success());
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Ended {
        let mut child = self.child.take().unwrap();
        let status = child.wait().unwrap();
        let printed = self.streams.drain(..).map(|stream| stream.join().unwrap()).collect::<String>();
        Ended { status, printed: format!("{}{printed}", self.greeting) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until the process has a handler for SIGTERM (bit 14 of the signals it catches): it prints its address a moment before.
fn wait_until_heard(process: u32) {
    loop {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        if u64::from_str_radix(caught, 16).unwrap() & (1 << 14) != 0 {
            return;
        }
        std::thread::yield_now();
    }
}

fn drained(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
