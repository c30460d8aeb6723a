//! `sluice demo`: the whole flow on sample bundles, with embedded parts, in a temporary folder.
//!
//! Takes: nothing, or a folder of bundles. Gives: a tale of what came in, what was decided, who was told, and what is
//! proven; its last line is a summary. It is the real server over TLS, in this process, and the real client. Never: keeps
//! anything unless asked to; listens beyond loopback.

mod house;
mod inbox;
mod proofs;
mod samples;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use sluice_merkle::checkpoint::SignedCheckpoint;

use self::house::House;
use self::inbox::{Event, Inbox, SUBSCRIBERS, subjects};
use self::proofs::{Receipt, Trusted};
use self::samples::{AFTER, BAD, CONSENTS, Chapter, EVENTS, PATIENTS, REVOCATION};
use super::client::{Ask, Client, ClientError, Payload};
use super::ingest::{Sender, Told, files};
use super::target::base_of;
use super::{Exit, Failure, Format, aside, json_line, serve};
use crate::observe::Observer;
use crate::publish::verify::{Trust, verify};

/// The longest that the ledger's receipts are waited for, and that events are.
const SETTLED_TIMEOUT: Duration = Duration::from_mins(1);

/// The doors have heard of a Consent on the ledger within their beat of a second; until then nothing is shown for it.
const MIRROR_BEAT: Duration = Duration::from_millis(1_500);

/// How often what is waited for is asked for.
const ASKED_EVERY: Duration = Duration::from_millis(250);

/// Everything is told once nothing has moved for so long: many times what a resource waits to be routed.
const STILL: Duration = Duration::from_millis(1_500);

/// Shows the whole flow on sample bundles: a gateway of its own, real and over TLS
#[derive(Debug, clap::Args)]
#[command(
    after_help = "JSON, last line: {bundles, resources, accepted, refused, permitted, denied, leaves, checkpoint, \
    events, proofs_verified}; accepted and refused count resources, permitted and denied count decisions, events those \
    published, proofs_verified those of events and receipts.\n\n\
    Examples:\n  sluice demo\n  sluice demo --keep house my-bundles/\n  \
    sluice demo --amqp amqp://guest:guest@127.0.0.1:5672/%2f"
)]
pub struct Args {
    /// URL of a RabbitMQ that events go through, and are taken back from
    #[arg(long, value_name = "URL")]
    amqp: Option<String>,
    /// Leaves keys, settings, data, events, receipts and trust.json here, so that `sluice serve` can go on with them
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Bundles to send instead of the samples
    dir: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// A folder that can't be written or is furnished already; a gateway or a broker that does not start or answer; a proof
/// that does not hold.
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
    let text = trusted.to_json()?;
    write(&house.dir.join("trust.json"), &text)?;
    let trust = Trust::parse(&text).map_err(|error| Failure::could_not_run(&error))?;
    // Before the gateway: a broker that is not there is told of at once.
    let inbox = Inbox::open(house).await?;
    let (server, observer) = serve::start(&house.config).await?;
    while observer.ready().is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut play = Play { house, observer, teller, told: Vec::new(), inbox, trust, events: Vec::new() };
    let shown = play.acts(args, &trusted).await;
    let inbox = play.inbox;
    server.drain().await;
    inbox.close(args.keep.is_some()).await;
    shown
}

struct Play<'p, 'o> {
    house: &'p House,
    observer: Arc<Observer>,
    teller: &'p mut Teller<'o>,
    /// Who sent what, and what became of it.
    told: Vec<(&'static str, Told)>,
    inbox: Inbox,
    trust: Trust,
    /// Everything that any subscriber got.
    events: Vec<Event>,
}

impl Play<'_, '_> {
    async fn acts(&mut self, args: &Args, trusted: &Trusted) -> Result<Exit, Failure> {
        self.say(
            "Sluice is a gateway between hospitals and everybody who may know of what happens there. This is one,",
        )?;
        let folder = self.house.dir.display().to_string();
        self.say(&format!("real and over TLS, in {folder}:"))?;
        self.say(PICTURE)?;
        if let Some(dir) = &args.dir {
            self.say("\n1. What came in")?;
            self.send_all("north", &files(std::slice::from_ref(dir))?).await?;
            self.say("\n2. Who was told? Each event carries its own proof, checked offline with the keys of trust.json alone.")?;
            self.tell_of_events().await?;
            self.say("\n3. Can it be forged?")?;
        } else {
            self.story().await?;
            self.say("\n6. Can it be forged?")?;
        }
        self.forge()?;
        let (leaves, checkpoint) = self.checkpoint().await?;
        let receipts = self.receipts(trusted).await?;
        self.summary(args, leaves, &checkpoint, receipts)
    }

    async fn story(&mut self) -> Result<(), Failure> {
        let samples = self.house.dir.join("samples");
        let failed = |error: std::io::Error| Failure::file(&samples, &error);
        let synthea = samples::unpack(&samples).map_err(failed)?;
        let (houses, patients) = synthea.split_at(2.min(synthea.len()));
        self.say("\n1. Patients decide: FHIR Consents. The ledger gets pseudonyms and keyed hashes, no health data.")?;
        for chapter in &CONSENTS {
            self.chapter(chapter).await?;
        }
        self.say("\n2. Hospitals send their records: Synthea's patients, and adverse events.")?;
        self.send_all("north", houses).await?;
        let (north, south) = patients.split_at(patients.len() / 2);
        self.send_all("north", north).await?;
        self.send_all("south", south).await?;
        self.chapter(&EVENTS).await?;
        self.say("\n3. Bad data is refused, with every reason and its place.")?;
        for chapter in &BAD {
            self.chapter(chapter).await?;
        }
        self.say(
            "\n4. Who was told? Each event carries its own proof, checked offline with the keys of trust.json alone.",
        )?;
        self.tell_of_events().await?;
        self.one_patient().await?;
        self.reads().await?;
        self.say("\n5. A patient takes it back, half-way.")?;
        self.chapter(&REVOCATION).await?;
        self.chapter(&AFTER).await?;
        let before = self.events.len();
        self.gather().await?;
        let new = self.events.len() - before;
        self.say(&format!("   the new adverse event is recorded, and {new} events went out: nobody is told"))?;
        self.reads().await
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
        let name = if name.chars().count() > 40 { name.chars().take(37).chain("...".chars()).collect() } else { name };
        let status = told.status.map(|status| status.as_u16()).unwrap_or_default();
        let (accepted, refused) = (told.accepted, told.refused);
        self.say(&format!("   {sender:<6} {name:<40} {status}  {accepted:>4} accepted  {refused:>3} refused"))?;
        if refused > 0 {
            for issue in told.issues().take(5) {
                self.say(&format!("            {issue}"))?;
            }
        }
        Ok(())
    }

    /// Waits until everybody has got what there is for them, and keeps it as it came.
    async fn gather(&mut self) -> Result<(), Failure> {
        let since = Instant::now();
        let (mut moved, mut last) = (Instant::now(), (0, 0));
        loop {
            for event in self.inbox.take(&self.trust).await? {
                let number = self.events.iter().filter(|it| it.subscriber == event.subscriber).count() + 1;
                let file = format!("events/{}-{number:04}.json", event.subscriber);
                write(&self.house.dir.join(file), &event.bytes)?;
                self.events.push(event);
            }
            let scrape = self.observer.scrape(true);
            let routed: u64 = OUTCOMES.iter().map(|outcome| decisions(&scrape, Some("route"), outcome)).sum();
            let cancelled = decisions(&scrape, Some("recheck"), "deny");
            let missing =
                decisions(&scrape, Some("route"), "permit").saturating_sub(cancelled + self.events.len() as u64);
            if last != (routed, self.events.len()) {
                (moved, last) = (Instant::now(), (routed, self.events.len()));
            }
            if missing == 0 && moved.elapsed() >= STILL {
                return Ok(());
            }
            if since.elapsed() >= SETTLED_TIMEOUT {
                aside(&format_args!("{missing} events have not come within {} s", SETTLED_TIMEOUT.as_secs()));
                return Ok(());
            }
            tokio::time::sleep(ASKED_EVERY).await;
        }
    }

    /// What each subscriber got, and whether it holds.
    async fn tell_of_events(&mut self) -> Result<(), Failure> {
        self.gather().await?;
        for subscriber in SUBSCRIBERS {
            let theirs = || self.events.iter().filter(|it| it.subscriber == subscriber);
            let mut types: BTreeMap<String, u64> = BTreeMap::new();
            for event in theirs() {
                *types.entry(event.about().split('/').next().unwrap_or_default().to_owned()).or_default() += 1;
            }
            let types: Vec<_> = types.iter().map(|(name, count)| format!("{count} {name}")).collect();
            let (all, verified) = (theirs().count(), theirs().filter(|it| it.verdict.verified).count());
            let assurance = theirs().find_map(|it| it.verdict.assurance.clone());
            let of = if types.is_empty() { "nobody permits it".to_owned() } else { types.join(", ") };
            let rest = assurance.map_or_else(String::new, |it| format!("; {verified} verified, assurance {it}"));
            let patients = subjects(&self.events, subscriber).len();
            self.say(&format!("   {subscriber:<8} {all:>3} events about {patients} patients: {of}{rest}"))?;
        }
        let broken: Vec<_> = self.events.iter().filter(|it| !it.verdict.verified).map(Event::about).collect();
        if !broken.is_empty() {
            return Err(Failure::CouldNotRun(format!("the proofs of these events do not hold: {}", broken.join(", "))));
        }
        Ok(())
    }

    /// That one patient is one in both hospitals, and another to each subscriber.
    async fn one_patient(&mut self) -> Result<(), Failure> {
        let safety: Vec<_> = self.events.iter().filter(|it| it.subscriber == "monitor").map(Event::about).collect();
        self.say(&format!("   the monitor knows of {}", safety.join(" and ")))?;
        self.say("   and not of AdverseEvent/headache-after-tablet: patient 2 permits nobody")?;
        let base = base_of(&self.house.config)?;
        let mut client = Client::new(&base, &self.house.identity("insurer"))?;
        let answer = client.send(&ask(format!("{}/Patient/s-1001", base.path()))).await;
        let answer = answer.map_err(|error| Failure::could_not_run(&error))?;
        let patient: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let (system, value) = (&patient["identifier"][0]["system"], &patient["identifier"][0]["value"]);
        if let (Some(system), Some(value)) = (system.as_str(), value.as_str()) {
            self.say(&format!(
                "   south wrote patient 1 as urn:oid:2.16.840.1.113883.4.1 \"999 48 8934\", which became {system}"
            ))?;
            self.say(&format!("   \"{value}\": the patient of north, whose consent holds for what south sends"))?;
        }
        let short = |name: &str| {
            subjects(&self.events, name)
                .iter()
                .map(|it| it.chars().take(8).collect::<String>())
                .collect::<Vec<_>>()
                .join(" and ")
        };
        let (insurer, monitor) = (short("insurer"), short("monitor"));
        if subjects(&self.events, "insurer").is_disjoint(&subjects(&self.events, "monitor")) {
            self.say(&format!("   the same two patients are {insurer} to the insurer,"))?;
            self.say(&format!("   {monitor} to the monitor: what they hold can't be joined"))?;
        }
        Ok(())
    }

    /// The insurer asks for each patient of the story.
    async fn reads(&mut self) -> Result<(), Failure> {
        tokio::time::sleep(MIRROR_BEAT).await;
        let base = base_of(&self.house.config)?;
        let mut client = Client::new(&base, &self.house.identity("insurer"))?;
        let mut told = Vec::new();
        for (number, patient) in PATIENTS.iter().enumerate() {
            let ask = ask(format!("{}/{patient}", base.path()));
            let answer = client.send(&ask).await.map_err(|error| Failure::could_not_run(&error))?;
            let says = match answer.status {
                StatusCode::OK => "permitted",
                StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => "denied",
                _ => "undecidable",
            };
            told.push(format!("patient {} {} {says}", number + 1, answer.status.as_u16()));
        }
        self.say(&format!("   the insurer asks by GET: {}", told.join(", ")))
    }

    /// Changes one thing of one event after the other, and tells which link broke.
    fn forge(&mut self) -> Result<(), Failure> {
        // The one with the most links: with the ledger's receipt, if there is one.
        let sample = self.events.iter().rev().find(|it| it.subscriber == "monitor").or_else(|| self.events.last());
        let Some(event) = sample else {
            return self.say("   there is no event to tamper with");
        };
        if !verify(&event.rewritten(), &self.trust).verified {
            return Err(Failure::CouldNotRun("an event that was written anew is not believed".to_owned()));
        }
        let mut lines = vec![format!("   an event about {}, changed in one place each:", event.about())];
        for (what, link, bytes) in event.tampered() {
            let found = verify(&bytes, &self.trust).broken_link;
            if found != Some(link) {
                return Err(Failure::CouldNotRun(format!("changed {what}: {found:?} was found to be broken")));
            }
            lines.push(format!("      {what:<28} broken link: {}", serde_json::json!(link).as_str().unwrap_or("-")));
        }
        lines.iter().try_for_each(|line| self.say(line))
    }

    /// The newest checkpoint of the log, as anyone may fetch it.
    async fn checkpoint(&mut self) -> Result<(u64, String), Failure> {
        // The beat is over once the newest receipts are anchored.
        let anchored = self.anchored().await?;
        let log = self.house.config.listen.log;
        let url = log.map(|address| format!("http://{address}/log/checkpoint")).unwrap_or_default();
        let url: http::Uri = url.parse().map_err(|error| Failure::could_not_run(&error))?;
        let mut client = Client::new(&url, &self.house.identity("monitor"))?;
        let answer = client.send(&ask("/log/checkpoint".to_owned())).await;
        let answer = answer.map_err(|error| Failure::could_not_run(&error))?;
        let signed = SignedCheckpoint::parse(&answer.body).map_err(|error| Failure::could_not_run(&error))?;
        let leaves = signed.checkpoint().size();
        let on = if anchored { "anchored on the embedded ledger" } else { "not anchored yet" };
        self.say(&format!("   the log: {leaves} leaves, shuffled and padded, its checkpoint signed and {on}"))?;
        Ok((leaves, String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// Waits until the last receipt shows that the ledger knows of it.
    async fn anchored(&mut self) -> Result<bool, Failure> {
        let Some((sender, operation)) = self.operations().pop() else { return Ok(false) };
        let since = Instant::now();
        while since.elapsed() < SETTLED_TIMEOUT {
            let (_, receipt) = self.receipt(sender, &operation).await?;
            if receipt.resources.iter().all(proofs::Resource::is_anchored) {
                return Ok(true);
            }
            tokio::time::sleep(ASKED_EVERY).await;
        }
        aside(&format_args!("the ledger's receipts have not come within {} s", SETTLED_TIMEOUT.as_secs()));
        Ok(false)
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

    /// Fetches every receipt and checks it with the trusted keys alone.
    async fn receipts(&mut self, trusted: &Trusted) -> Result<u64, Failure> {
        let (mut verified, mut broken) = (0_u64, Vec::new());
        for (sender, operation) in self.operations() {
            let (text, receipt) = self.receipt(sender, &operation).await?;
            write(&self.house.dir.join(format!("receipts/{operation}.json")), text.to_string().as_bytes())?;
            for resource in &receipt.resources {
                match trusted.check(resource) {
                    Ok(_) => verified += 1,
                    Err(link) => broken.push(format!("{operation}: {link}")),
                }
            }
        }
        if !broken.is_empty() {
            return Err(Failure::CouldNotRun(format!("these receipts do not hold: {}", broken.join(", "))));
        }
        self.say(&format!("   the hospitals' receipts: {verified} hold, one for each version of a resource"))?;
        self.say("   assurance self: all this rests on the operator's own signature; a ledger of others or witnesses add theirs")?;
        Ok(verified)
    }

    fn summary(&mut self, args: &Args, leaves: u64, checkpoint: &str, receipts: u64) -> Result<Exit, Failure> {
        let (accepted, refused) = self
            .told
            .iter()
            .fold((0, 0), |(accepted, refused), (_, told)| (accepted + told.accepted, refused + told.refused));
        let scrape = self.observer.scrape(true);
        let (permitted, denied) = (decisions(&scrape, None, "permit"), decisions(&scrape, None, "deny"));
        let events = self.events.len() as u64;
        self.say(&format!(
            "\n{accepted} resources accepted, {refused} refused; {permitted} decisions permit, {denied} deny; \
             {events} events published; {} proofs verified",
            events + receipts
        ))?;
        match &args.keep {
            None => self.say(
                "With --keep FOLDER the gateway stays, and `sluice serve --config FOLDER/sluice.toml` goes on with it.",
            )?,
            Some(folder) => {
                let folder = folder.display();
                self.say(&format!("Go on with: sluice serve --config {folder}/sluice.toml"))?;
                self.say(&format!("            sluice verify {folder}/events/*.json --trust {folder}/trust.json"))?;
            }
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
            "events": events,
            "proofs_verified": events + receipts,
        });
        json_line(self.teller.out, &summary)?;
        Ok(Exit::Fine)
    }
}

const PICTURE: &str = "
   hospital north ──┐                                             ┌──> insurer: claims, to pay them
                    ├──> uniform > checked > permitted > stored ──┤
   hospital south ──┘     proven on a ledger                      └──> monitor: adverse events";

/// What a decision can be.
const OUTCOMES: [&str; 3] = ["permit", "deny", "undecidable"];

fn ask(path: String) -> Ask {
    Ask { method: Method::GET, path, headers: Vec::new(), payload: Payload::None, repeatable: true }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|error| Failure::file(path, &error))
}

/// Decisions of one outcome at one door, or at all, as the metrics count them.
fn decisions(scrape: &str, door: Option<&str>, outcome: &str) -> u64 {
    let of = |line: &str| {
        let (labels, count) = line.split_once("consent_decisions_total{")?.1.rsplit_once("} ")?;
        let labels = labels.to_ascii_lowercase();
        let has = |name: &str, value: &str| labels.contains(&format!("{name}=\"{value}\""));
        let wanted = has("decision", outcome) && door.is_none_or(|door| has("door", door));
        wanted.then(|| count.parse::<u64>().ok()).flatten()
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
        assert_eq!((decisions(scrape, None, "permit"), decisions(scrape, Some("read"), "permit")), (5, 2));
        assert_eq!(decisions(scrape, Some("read"), "deny"), 1);
    }
}
