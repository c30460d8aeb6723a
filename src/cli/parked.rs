//! `sluice parked`: the units that wait for an operator, because it is not known whether the upstream has them.
//!
//! Takes the address of a gateway's admin port. Gives the list, or what became of one unit. Never: shows a resource.

use std::io::Write;
use std::path::PathBuf;

use http::{HeaderValue, Method, StatusCode, Uri, header};
use serde_json::Value;

use super::client::{Ask, Client, Identity, Payload};
use super::{Exit, Failure, Format, json_line, serve, settings};
use crate::config::SecretFile;

/// Where the gateway is.
#[derive(Debug, clap::Args)]
pub struct Gateway {
    /// Settings that name the admin port [default: what SLUICE_CONFIG names]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// URL of the admin port, on a loopback address, instead of that of the settings
    #[arg(long, value_name = "URL")]
    admin: Option<Uri>,
    /// The operator's token, whose SHA-256 the gateway's settings name (listen.operator_token_sha256_file)
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
}

/// One unit.
#[derive(Debug, clap::Args)]
pub struct One {
    #[command(flatten)]
    gateway: Gateway,
    /// The operation, as `list` tells it
    operation: String,
}

/// What is asked.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Lists the units that are parked
    #[command(after_help = "JSON, one line a unit: {operation, since, why, sender, resources}. Exit code 1 if any is \
        parked.\n\nExample:\n  sluice parked list --config sluice.toml --token-file operator.token")]
    List(Gateway),
    /// Asks the upstream once more what became of a unit
    #[command(
        after_help = "JSON: {operation, outcome}: recorded, dropped (it would be refused today, and nothing of it \
        stands there) or open.\n\nExample:\n  sluice parked look --config sluice.toml \
        --token-file operator.token 2f0c9a4e-6a53-4a4e-9a3e-5d8c2f6b1f10"
    )]
    Look(One),
    /// Sends a unit, since the upstream does not have it
    #[command(
        after_help = "For a unit that an operator has looked for at the upstream and not found. If the upstream \
        has it after all, it will have it twice. JSON: {operation, outcome}: recorded, dropped (the upstream refused) or \
        open.\n\nExample:\n  sluice parked send --config sluice.toml --token-file operator.token 2f0c9a4e-6a53-4a4e-9a3e-5d8c2f6b1f10"
    )]
    Send(One),
    /// Drops a unit: it is neither sent nor recorded, and its sender may send it again
    #[command(after_help = "Its sender was never told that it was accepted. JSON: {operation, outcome}: dropped.\n\n\
        Example:\n  sluice parked drop --config sluice.toml --token-file operator.token 2f0c9a4e-6a53-4a4e-9a3e-5d8c2f6b1f10")]
    Drop(One),
    /// Records a unit that the upstream has
    #[command(
        after_help = "JSON: {operation, outcome}: recorded.\n\nExample:\n  sluice parked found --config sluice.toml \
        --token-file operator.token 2f0c9a4e-6a53-4a4e-9a3e-5d8c2f6b1f10 Patient/12 Observation/13/_history/1"
    )]
    Found {
        /// Which
        #[command(flatten)]
        one: One,
        /// Where each resource stands at the upstream, in the order of the unit
        #[arg(required = true, value_name = "TYPE/ID")]
        places: Vec<String>,
    },
}

/// Runs it.
///
/// # Errors
/// Settings that are not good, a gateway that does not answer, and its refusals.
pub fn run(command: &Command, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let (gateway, method, path) = match command {
        Command::List(gateway) => (gateway, Method::GET, "/parked".to_owned()),
        Command::Look(one) => of_one(one, "look", &[]),
        Command::Send(one) => of_one(one, "send", &[]),
        Command::Drop(one) => of_one(one, "drop", &[]),
        Command::Found { one, places } => of_one(one, "found", places),
    };
    let told = ask(gateway, method, path)?;
    let Some(units) = told["parked"].as_array() else {
        print(format, out, &told, &["operation", "outcome"])?;
        return Ok(Exit::of_findings(told["outcome"] == "open"));
    };
    for unit in units {
        print(format, out, unit, &["operation", "since", "sender", "resources", "why"])?;
    }
    if told["more"] == true {
        super::aside(&"there are more");
    }
    Ok(Exit::of_findings(!units.is_empty()))
}

fn of_one<'a>(one: &'a One, ruling: &str, places: &[String]) -> (&'a Gateway, Method, String) {
    let query: Vec<String> = places.iter().map(|place| format!("at={place}")).collect();
    (&one.gateway, Method::POST, format!("/parked/{}/{ruling}?{}", one.operation, query.join("&")))
}

fn ask(gateway: &Gateway, method: Method, path: String) -> Result<Value, Failure> {
    let base = if let Some(admin) = &gateway.admin {
        admin.clone()
    } else {
        let admin = settings(gateway.config.clone())?.listen.admin;
        format!("http://{admin}").parse().map_err(|error| Failure::could_not_run(&error))?
    };
    let token = SecretFile::new(&gateway.token_file).read();
    let token = token.map_err(|error| Failure::file(&gateway.token_file, &error))?;
    let shown = HeaderValue::from_bytes(&[b"Bearer ", token.expose()].concat());
    let mut shown = shown.map_err(|_| Failure::CouldNotRun("the token is not visible ASCII".to_owned()))?;
    shown.set_sensitive(true);
    let json = HeaderValue::from_static("application/json");
    // A ruling is not repeated by itself: the operator sees what became of it.
    let repeatable = method == Method::GET;
    let ask = Ask {
        method,
        path,
        headers: vec![(header::CONTENT_TYPE, json), (header::AUTHORIZATION, shown)],
        payload: Payload::None,
        repeatable,
    };
    let answer = serve::runtime()?.block_on(async {
        Client::new(&base, &Identity::default())?.send(&ask).await.map_err(|error| Failure::could_not_run(&error))
    })?;
    let told: Value = serde_json::from_slice(&answer.body).map_err(|error| Failure::could_not_run(&error))?;
    match answer.status {
        StatusCode::OK => Ok(told),
        status => {
            let said = told["issue"][0]["diagnostics"].as_str().unwrap_or_default();
            Err(Failure::CouldNotRun(format!("{status}: expected {said}")))
        }
    }
}

fn print(format: Format, out: &mut dyn Write, value: &Value, names: &[&str]) -> Result<(), Failure> {
    match format {
        Format::Json => json_line(out, value)?,
        Format::Human => {
            let texts = names.iter().map(|name| match &value[*name] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            writeln!(out, "{}", texts.collect::<Vec<_>>().join("  "))?;
        }
    }
    Ok(())
}
