//! `sluice serve`: a gateway until it is told to stop.
//!
//! Takes settings; prints one line with the URLs bound once the gateway is ready. SIGHUP makes it read rules and packages
//! again. SIGTERM and SIGINT drain it; a second one ends it at once. Never: binds a port under settings that are not good.

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, Failure, Format, json_line, settings};
use crate::config::Config;
use crate::observe::{self, Observer};
use crate::serve::{Server, StartError, build, metadata};

/// How often a gateway that starts is asked whether it is ready.
const READY_EVERY: Duration = Duration::from_millis(20);

/// Serves until SIGTERM or SIGINT, then lets what is under way end
#[derive(Debug, clap::Args)]
#[command(
    after_help = "JSON, once /readyz answers 200: {ready, fhir, admin, log}, the URLs bound. Logs go to stderr. \
    Settings that are not good end it with exit code 64 before a port is bound. SIGHUP makes it read the folders of rules \
    and packages again; the settings themselves are read at the start alone.\n\n\
    Example:\n  sluice serve --config sluice.toml"
)]
pub struct Args {
    /// The settings [default: what SLUICE_CONFIG names]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// Settings that are not good, and whatever keeps the gateway from starting.
pub fn run(args: &Args, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let config = settings(args.config.clone())?;
    observe::start_logs(&config.observe);
    runtime()?.block_on(serve(&config, format, out))
}

/// The asynchronous runtime of a command that needs one.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| Failure::could_not_run(&error))
}

/// The URLs of a server.
pub(super) struct Urls {
    /// `[base]` of FHIR.
    pub(super) fhir: String,
    /// Health and metrics.
    pub(super) admin: String,
    /// The Merkle log.
    pub(super) log: String,
}

impl Urls {
    /// Where `server` was bound under these settings.
    pub(super) fn of(config: &Config, server: &Server) -> Self {
        let scheme = if config.listen.tls.is_some() { "https" } else { "http" };
        Self {
            fhir: format!("{scheme}://{}/fhir", server.fhir),
            admin: format!("http://{}", server.admin),
            log: match config.listen.log {
                Some(_) => format!("http://{}/log", server.log),
                None => format!("{scheme}://{}/log", server.log),
            },
        }
    }
}

/// Starts the gateway of these settings.
pub(super) async fn start(config: &Config) -> Result<(Server, Arc<Observer>), Failure> {
    let observer = Observer::new();
    let built = build::build(config, &observer).await.map_err(|error| failed(&error))?;
    let metadata = metadata::metadata(&config.tenant).map_err(|error| Failure::could_not_run(&error))?;
    let server = Server::start(config, built, metadata, Arc::clone(&observer));
    Ok((server.await.map_err(|error| failed(&error))?, observer))
}

fn failed(error: &StartError) -> Failure {
    match error {
        StartError::Bind { .. } | StartError::Part(_) => Failure::could_not_run(error),
        StartError::Settings(_) | StartError::Tls(_) => Failure::Usage(error.to_string()),
    }
}

async fn serve(config: &Config, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    // Before anything is bound, so that a signal that comes early is not lost.
    let stopped = stop()?;
    let mut stopped = std::pin::pin!(stopped);
    let mut reload = signal(SignalKind::hangup()).map_err(|error| Failure::could_not_run(&error))?;
    let (server, observer) = start(config).await?;
    let ready = async {
        while observer.ready().is_err() {
            tokio::time::sleep(READY_EVERY).await;
        }
    };
    let is_ready = tokio::select! {
        () = ready => true,
        () = &mut stopped => false,
    };
    if is_ready {
        print(&Urls::of(config, &server), format, out)?;
        loop {
            tokio::select! {
                () = &mut stopped => break,
                _ = reload.recv() => server.reload(),
            }
        }
    }
    tracing::info!("draining");
    let again = stop()?;
    tokio::select! {
        () = server.drain() => Ok(Exit::Fine),
        () = again => Err(Failure::CouldNotRun("stopped before what was under way had ended".to_owned())),
    }
}

/// Ends at the next SIGTERM or SIGINT.
fn stop() -> Result<impl Future<Output = ()>, Failure> {
    let on = |kind| signal(kind).map_err(|error| Failure::could_not_run(&error));
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn print(urls: &Urls, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let Urls { fhir, admin, log } = urls;
    match format {
        Format::Human => writeln!(out, "ready\n  fhir   {fhir}\n  admin  {admin}\n  log    {log}")?,
        Format::Json => {
            json_line(out, &serde_json::json!({ "ready": true, "fhir": fhir, "admin": admin, "log": log }))?;
        }
    }
    out.flush()?;
    Ok(())
}
