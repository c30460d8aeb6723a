//! `sluice demo`: the whole flow on sample bundles, with embedded parts, in a temporary folder.
//!
//! Takes: nothing, or a folder of bundles. Gives: a tale of what came in, what was decided, and what is proven; its last
//! line is a summary. It is the real server over TLS, in this process, and the real client. Never: keeps anything unless
//! asked to; listens beyond loopback.

mod house;
mod proofs;
mod samples;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use sluice_merkle::checkpoint::SignedCheckpoint;

use self::house::House;
use self::proofs::{Receipt, Trusted};
use self::samples::{AFTER, BAD, CONSENTS, Chapter, EVENTS, PATIENTS, REVOCATION};
use super::client::{Ask, Client, ClientError, Payload};
use super::ingest::{Sender, Told, base_of, files};
use super::{Exit, Failure, Format, aside, json_line, serve};
use crate::observe::Observer;

/// The longest that the ledger's receipts are waited for.
const ANCHORED_TIMEOUT: Duration = Duration::from_secs(30);

/// The doors have heard of a Consent on the ledger within their beat of a second; until then nothing is shown for it.
const MIRROR_BEAT: Duration = Duration::from_millis(1_500);

/// How often they are asked for.
const ANCHORED_EVERY: Duration = Duration::from_millis(250);

/// Shows the whole flow on sample bundles: a gateway of its own, real and over TLS
#[derive(Debug, clap::Args)]
#[command(
    after_help = "JSON, last line: {bundles, resources, accepted, refused, permitted, denied, leaves, checkpoint, \
    events, proofs_verified}; accepted and refused count resources, permitted and denied count decisions.\n\n\
    Examples:\n  sluice demo\n  sluice demo --keep house my-bundles/"
)]
pub struct Args {
    /// URL of a RabbitMQ that events go through, as in amqp://guest:guest@127.0.0.1:5672/%2f
    #[arg(long, value_name = "URL")]
    amqp: Option<String>,
    /// Leaves keys, settings, data, receipts and trust.json here, so that `sluice serve` can go on with them
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Bundles to send instead of the samples
    dir: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// A folder that can't be written or is furnished already; a gateway that does not start or answer.
pub fn run(args: &Args, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let temporary = match args.keep {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(|error| Failure::could_not_run(&error))?),
    };
    let dir = args.keep.as_deref().or(temporary.as_ref().map(tempfile::TempDir::path)).unwrap_or(Path::new("."));
    let house = House::furnish(dir, args.amqp.as_deref())?;
    let mut teller = Teller { format, out };
    serve::runtime()?.block_on(play(&house, args, &mut teller))
}

/// Where the tale goes: to people on stdout, unless stdout is for the summary alone.
struct Teller<'o> {
    format: Format,
    out: &'o mut dyn Write,
}

impl Teller<'_> {
    fn tell(&mut self, line: &str) -> Result<(), Failure> {
        match self.format {
            Format::Human => writeln!(self.out, "{line}")?,
            // Nobody needs to read it.
            Format::Json => drop(writeln!(std::io::stderr(), "{line}")),
        }
        Ok(())
    }
}

async fn play(house: &House, args: &Args, teller: &mut Teller<'_>) -> Result<Exit, Failure> {
    let trusted = Trusted::of(&house.config)?;
    write(&house.dir.join("trust.json"), &trusted.to_json()?)?;
    let (server, observer) = serve::start(&house.config).await?;
    while observer.ready().is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut play = Play { house, observer, teller, told: Vec::new() };
    let shown = play.acts(args, &trusted).await;
    server.drain().await;
    shown
}

struct Play<'p, 'o> {
    house: &'p House,
    observer: Arc<Observer>,
    teller: &'p mut Teller<'o>,
    told: Vec<(&'static str, Told)>,
}

impl Play<'_, '_> {
    async fn acts(&mut self, args: &Args, trusted: &Trusted) -> Result<Exit, Failure> {
        let folder = self.house.dir.display().to_string();
        self.say(&format!("A gateway of north.example, in {folder}, over TLS with client certificates."))?;
        self.say("Two hospitals send: north and south. An insurer and an adverse-event monitor want to know.")?;
        if let Some(dir) = &args.dir {
            self.say("\n1. What came in")?;
            self.send_all("north", &files(std::slice::from_ref(dir))?).await?;
        } else {
            self.story().await?;
        }
        self.say("\nLog and ledger")?;
        let (leaves, checkpoint) = self.checkpoint().await?;
        let verified = self.proofs(trusted).await?;
        self.summary(leaves, &checkpoint, verified)
    }

    async fn story(&mut self) -> Result<(), Failure> {
        let samples = self.house.dir.join("samples");
        let failed = |error: std::io::Error| Failure::file(&samples, &error);
        let synthea = samples::unpack(&samples).map_err(failed)?;
        let (houses, patients) = synthea.split_at(2.min(synthea.len()));
        self.say(
            "\n1. What the patients decided (FHIR Consents; the ledger gets pseudonyms and keyed hashes of them)",
        )?;
        for chapter in &CONSENTS {
            self.chapter(chapter).await?;
        }
        self.say("\n2. Their records (Synthea's; codes of its own that R4 lacks are let through with a warning)")?;
        self.send_all("north", houses).await?;
        let (north, south) = patients.split_at(patients.len() / 2);
        self.send_all("north", north).await?;
        self.send_all("south", south).await?;
        self.chapter(&EVENTS).await?;
        self.say("\n3. Who may read what: the insurer asks for each patient")?;
        self.reads().await?;
        self.chapter(&REVOCATION).await?;
        self.chapter(&AFTER).await?;
        self.reads().await?;
        self.say("\n4. What is refused, why and where")?;
        for chapter in &BAD {
            self.chapter(chapter).await?;
        }
        Ok(())
    }

    fn say(&mut self, line: &str) -> Result<(), Failure> {
        self.teller.tell(line)
    }

    async fn chapter(&mut self, chapter: &Chapter) -> Result<(), Failure> {
        let dir = self.house.dir.join("samples");
        let file = chapter.write(&dir).map_err(|error| Failure::file(&dir, &error))?;
        self.say(&format!("   {}:", chapter.title))?;
        self.send_all(chapter.sender, &[file]).await
    }

    /// Sends files as this hospital, and tells what became of each.
    async fn send_all(&mut self, sender: &'static str, files: &[PathBuf]) -> Result<(), Failure> {
        let mut client = Sender::new(&base_of(&self.house.config)?, &self.house.identity(sender))?;
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} bundles");
        let bar =
            ProgressBar::new(files.len() as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        for file in files {
            let told = client.file(file).await.map_err(|error| Failure::file(file, &error))?;
            bar.inc(1);
            bar.suspend(|| self.tell_of(sender, &told))?;
            self.told.push((sender, told));
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn tell_of(&mut self, sender: &str, told: &Told) -> Result<(), Failure> {
        let name = told.file.file_name().unwrap_or_default().to_string_lossy();
        let status = told.status.map(|status| status.as_u16()).unwrap_or_default();
        let (accepted, refused) = (told.accepted, told.refused);
        self.say(&format!("   {sender:<6} {name:<62} {status}  {accepted:>4} accepted {refused:>3} refused"))?;
        if refused > 0 {
            for issue in told.issues().take(5) {
                self.say(&format!("            {issue}"))?;
            }
        }
        Ok(())
    }

    /// The insurer asks for each patient of the story.
    async fn reads(&mut self) -> Result<(), Failure> {
        tokio::time::sleep(MIRROR_BEAT).await;
        let base = base_of(&self.house.config)?;
        let mut client = Client::new(&base, &self.house.identity("insurer"))?;
        for (number, patient) in PATIENTS.iter().enumerate() {
            let ask = ask(format!("{}/{patient}", base.path()));
            let answer = client.send(&ask).await.map_err(|error| Failure::could_not_run(&error))?;
            let says = match answer.status {
                StatusCode::OK => "permitted",
                StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => "denied",
                _ => "undecidable",
            };
            self.say(&format!("   insurer asks for patient {}: {} {says}", number + 1, answer.status.as_u16()))?;
        }
        Ok(())
    }

    /// The newest checkpoint of the log, as anyone may fetch it.
    async fn checkpoint(&mut self) -> Result<(u64, String), Failure> {
        // The beat is over once the newest receipts are anchored.
        self.anchored().await?;
        let log = self.house.config.listen.log;
        let url = log.map(|address| format!("http://{address}/log/checkpoint")).unwrap_or_default();
        let url: http::Uri = url.parse().map_err(|error| Failure::could_not_run(&error))?;
        let mut client = Client::new(&url, &self.house.identity("monitor"))?;
        let answer = client.send(&ask("/log/checkpoint".to_owned())).await;
        let answer = answer.map_err(|error| Failure::could_not_run(&error))?;
        let signed = SignedCheckpoint::parse(&answer.body).map_err(|error| Failure::could_not_run(&error))?;
        let leaves = signed.checkpoint().size();
        self.say(&format!("   {leaves} leaves (padded and shuffled), checkpoint signed and served at {url}"))?;
        Ok((leaves, String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// Waits until the last receipt shows that the ledger knows of it.
    async fn anchored(&mut self) -> Result<(), Failure> {
        let Some((sender, operation)) = self.operations().pop() else { return Ok(()) };
        let since = Instant::now();
        while since.elapsed() < ANCHORED_TIMEOUT {
            let (_, receipt) = self.receipt(sender, &operation).await?;
            if receipt.resources.iter().all(proofs::Resource::is_anchored) {
                return self.say("   anchored on the embedded ledger, which this gateway hosts");
            }
            tokio::time::sleep(ANCHORED_EVERY).await;
        }
        aside(&format_args!("the ledger's receipts have not come within {} s", ANCHORED_TIMEOUT.as_secs()));
        Ok(())
    }

    /// Who sent what was acknowledged, by the receipts' names.
    fn operations(&self) -> Vec<(&'static str, String)> {
        let mut operations = Vec::new();
        for (sender, told) in &self.told {
            let of_batch = told.receipt.as_array().into_iter().flatten();
            let names = of_batch.chain([&told.receipt]).filter_map(Value::as_str);
            // A stream's receipt is a hash over those of its lines, which have to be asked for one by one.
            operations.extend(names.filter(|name| name.contains('-')).map(|name| (*sender, name.to_owned())));
        }
        operations
    }

    async fn receipt(&self, sender: &str, operation: &str) -> Result<(Value, Receipt), Failure> {
        let base = base_of(&self.house.config)?;
        let mut client = Client::new(&base, &self.house.identity(sender))?;
        let asked: Result<_, ClientError> = client.send(&ask(format!("/receipts/{operation}"))).await;
        let answer = asked.map_err(|error| Failure::could_not_run(&error))?;
        let bad = |error: serde_json::Error| Failure::CouldNotRun(format!("receipt {operation}: {error}"));
        let text = serde_json::from_slice(&answer.body).map_err(bad)?;
        Ok((text, serde_json::from_slice(&answer.body).map_err(bad)?))
    }

    /// Fetches every receipt and checks it with the trusted keys alone; then changes one byte of one.
    async fn proofs(&mut self, trusted: &Trusted) -> Result<u64, Failure> {
        self.say("\nProofs, checked with the keys of trust.json alone")?;
        let (mut verified, mut broken, mut assurance) = (0_u64, 0_u64, String::from("self"));
        let mut sample = None;
        for (sender, operation) in self.operations() {
            let (text, receipt) = self.receipt(sender, &operation).await?;
            write(&self.house.dir.join(format!("receipts/{operation}.json")), text.to_string().as_bytes())?;
            for resource in receipt.resources {
                match trusted.check(&resource) {
                    Ok(rests_on) => {
                        (verified, assurance) = (verified + 1, rests_on);
                        sample = Some(resource);
                    }
                    Err(link) => {
                        broken += 1;
                        self.say(&format!("   BROKEN: {operation}: {link}"))?;
                    }
                }
            }
        }
        self.say(&format!("   {verified} receipts hold: record -> commitment -> leaf -> checkpoint -> ledger"))?;
        self.say(&format!("   assurance: {assurance} (the operator's own signature: no witnesses, one host)"))?;
        if let Some(tampered) = sample.and_then(proofs::Resource::tampered) {
            match trusted.check(&tampered) {
                Ok(_) => return Err(Failure::CouldNotRun("a receipt with a changed byte was believed".to_owned())),
                Err(link) => {
                    self.say(&format!("   one byte of a record's digest changed: broken link `{link}`, as it should"))?;
                }
            }
        }
        if broken > 0 {
            return Err(Failure::CouldNotRun(format!("{broken} receipts do not hold")));
        }
        Ok(verified)
    }

    fn summary(&mut self, leaves: u64, checkpoint: &str, proofs_verified: u64) -> Result<Exit, Failure> {
        let (accepted, refused) = self
            .told
            .iter()
            .fold((0, 0), |(accepted, refused), (_, told)| (accepted + told.accepted, refused + told.refused));
        let scrape = self.observer.scrape();
        let decided = |outcome| decisions(&scrape, outcome);
        let (permitted, denied) = (decided("permit"), decided("deny"));
        self.say(&format!(
            "\n{accepted} resources accepted, {refused} refused; {permitted} decisions permit, {denied} deny"
        ))?;
        if self.house.dir.join("sluice.toml").exists() {
            let dir = self.house.dir.display();
            self.say(&format!("With --keep FOLDER, `sluice serve --config {dir}/sluice.toml` goes on from here."))?;
        }
        let summary = serde_json::json!({
            "bundles": self.told.len(),
            "resources": accepted + refused,
            "accepted": accepted,
            "refused": refused,
            "permitted": permitted,
            "denied": denied,
            "leaves": leaves,
            "checkpoint": checkpoint,
            "events": 0,
            "proofs_verified": proofs_verified,
        });
        json_line(self.teller.out, &summary)?;
        Ok(Exit::Fine)
    }
}

fn ask(path: String) -> Ask {
    Ask { method: Method::GET, path, headers: Vec::new(), payload: Payload::None, repeatable: true }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|error| Failure::file(path, &error))
}

/// Decisions of one outcome at all doors, as the metrics count them.
fn decisions(scrape: &str, outcome: &str) -> u64 {
    let of = |line: &str| {
        let (labels, count) = line.split_once("consent_decisions_total{")?.1.rsplit_once("} ")?;
        let wanted = format!("decision=\"{outcome}\"");
        labels.to_ascii_lowercase().contains(&wanted).then(|| count.parse::<u64>().ok()).flatten()
    };
    scrape.lines().filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_summed_over_doors() {
        let scrape = "sluice_consent_decisions_total{door=\"Intake\",decision=\"Permit\"} 3\n\
            sluice_consent_decisions_total{door=\"Read\",decision=\"Permit\"} 2\n\
            sluice_consent_decisions_total{door=\"Read\",decision=\"Deny\"} 1\n# EOF\n";
        assert_eq!((decisions(scrape, "permit"), decisions(scrape, "deny")), (5, 1));
    }
}
