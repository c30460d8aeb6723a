//! The processes that are compared. Builds what the foreign ones need, with Maven and npm, the first time; into a folder of
//! the cache that is named by the hash of their sources.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// A running side. It ends with this.
pub struct Peer {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// CPU seconds from its start to its first validated Bundle.
    pub start: f64,
}

impl Peer {
    /// Starts it; it has validated one Bundle when this returns.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
        let commands = child.stdin.take().expect("its input");
        let answers = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut peer = Self { child, commands, answers, start: 0.0 };
        peer.start = peer.number();
        peer
    }

    /// CPU seconds of so many passes over all Bundles.
    pub fn passes(&mut self, count: u32) -> f64 {
        self.ask(&count.to_string());
        self.number()
    }

    /// What it finds in the Bundles of a folder, a line each.
    pub fn findings(&mut self, folder: &Path) -> Vec<String> {
        self.ask(&folder.to_string_lossy());
        let lines = self.answers.by_ref().map(|line| line.expect("a line"));
        lines.take_while(|line| !line.is_empty()).collect()
    }

    /// The most memory that it has held so far, in MB.
    pub fn memory_peak_mb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("/proc of Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1e3
    }

    fn ask(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("it still listens");
    }

    fn number(&mut self) -> f64 {
        let line = self.answers.next().expect("it still runs").expect("a line");
        line.parse().unwrap_or_else(|_| panic!("seconds, not {line}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // What has ended already needs no end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ours: this program again.
pub fn ours(bundles: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg("worker").arg(bundles);
    command
}

/// HAPI's `FhirInstanceValidator`, on the collector that spends least.
pub fn hapi(bundles: &Path) -> Command {
    let project = Path::new(HERE).join("hapi");
    let sources = [project.join("pom.xml"), project.join("src/main/java/dev/sluice/bench/Main.java")];
    let built = built("hapi", &sources, |out| {
        let mut maven = Command::new("mvn");
        maven.args(["-q", "-B", "-ntp", "-f"]).arg(&sources[0]);
        maven.args(["--define", &format!("out={}", out.display()), "compile", "dependency:copy-dependencies"]);
        maven
    });
    let classpath = format!("{}:{}/*", built.join("classes").display(), built.join("lib").display());
    let mut command = Command::new("java");
    command.args(["-Xmx2g", "-XX:+UseSerialGC", "-cp", &classpath, "dev.sluice.bench.Main"]).arg(bundles);
    command
}

/// Medplum's `validateResource`.
pub fn medplum(bundles: &Path) -> Command {
    let project = Path::new(HERE).join("medplum");
    let sources = ["package.json", "package-lock.json", "worker.mjs"].map(|name| project.join(name));
    let built = built("medplum", &sources, |out| {
        for source in &sources {
            std::fs::copy(source, out.join(source.file_name().expect("a name"))).expect("a copy");
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--omit=peer", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix"]).arg(out);
        npm
    });
    let mut command = Command::new("node");
    command.arg("--no-warnings").arg(built.join("worker.mjs")).arg(bundles);
    command
}

/// The folder that holds what `build` makes of these sources, which it is told to make in a folder that is given.
pub fn built(name: &str, sources: &[PathBuf], build: impl FnOnce(&Path) -> Command) -> PathBuf {
    let mut hash = DefaultHasher::new();
    for source in sources {
        std::fs::read(source).unwrap_or_else(|error| panic!("{}: {error}", source.display())).hash(&mut hash);
    }
    let kept = cache().join("sluice/bench-validate");
    let built = kept.join(format!("{name}-{:016x}", hash.finish()));
    if !built.is_dir() {
        // Another run may build it at the same time: whoever is first names it.
        let fresh = kept.join(format!("{name}-of-{}", std::process::id()));
        std::fs::create_dir_all(&fresh).expect("a folder of the cache");
        let status = build(&fresh).status().expect("Maven, npm: ./check installs them");
        assert!(status.success(), "{name} could not be built");
        if std::fs::rename(&fresh, &built).is_err() {
            std::fs::remove_dir_all(&fresh).expect("a folder of ours");
        }
    }
    built
}

#[expect(clippy::disallowed_methods, reason = "where caches are is no setting of a gateway")]
fn cache() -> PathBuf {
    let folder = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).expect("a folder for caches")
}
