//! The chart, live: the binary starts under the settings that it renders, and answers where its probes ask.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::StatusCode;

use crate::house::{House, OPERATOR, admin, serve};

/// Helm, as `./check` installs it.
#[expect(clippy::disallowed_methods, reason = "where a tool stands is no setting")]
fn helm() -> Command {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let own = cache.map(|it| it.join("sluice/tools/bin/helm")).filter(|it| it.exists());
    Command::new(own.unwrap_or_else(|| "helm".into()))
}

/// One template of the chart under these values, as YAML.
fn rendered(values: &str, template: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = helm()
        .current_dir(root)
        .args(["template", "sluice", "charts/sluice", "--values"])
        .arg(format!("charts/sluice/ci/{values}-values.yaml"))
        .args(["--show-only", &format!("templates/{template}.yaml")])
        .output()
        .expect("helm is not installed: run ./check, which installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The lines below the first `key:`, without their common indentation.
fn below(yaml: &str, key: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = yaml.lines().skip_while(|line| !line.trim_start().starts_with(&format!("{key}:")));
    let own = indent(lines.next().unwrap_or_else(|| panic!("no {key} in\n{yaml}")));
    let block: Vec<&str> = lines.take_while(|line| line.trim().is_empty() || indent(line) > own).collect();
    let common = block.iter().filter(|line| !line.trim().is_empty()).map(|line| indent(line)).min().unwrap_or(0);
    block.iter().flat_map(|line| [line.get(common..).unwrap_or_default(), "\n"]).collect()
}

fn scalar(block: &str, key: &str) -> String {
    let line =
        block.lines().find_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(&format!("{key}: ")));
    line.unwrap_or_else(|| panic!("no {key} in\n{block}")).to_owned()
}

/// The Pod's ports by their names.
fn ports(statefulset: &str) -> BTreeMap<String, u16> {
    let block = below(statefulset, "ports");
    let names = block.lines().filter_map(|line| line.strip_prefix("- name: "));
    let numbers = block.lines().filter_map(|line| line.trim_start().strip_prefix("containerPort: "));
    names.map(str::to_owned).zip(numbers.map(|it| it.parse().unwrap())).collect()
}

async fn lives(values: &str) {
    let (settings, statefulset) =
        (below(&rendered(values, "configmap"), "sluice.toml"), rendered(values, "statefulset"));
    let ports = ports(&statefulset);
    let house = House::new("");
    let root = house.folder.path();
    let etc = root.join("etc/sluice");
    for folder in [
        "etc/sluice/tls",
        "etc/sluice/client-ca",
        "etc/sluice/files/upstream",
        "etc/sluice/files/broker",
        "etc/sluice/operator",
        "var/lib/sluice",
        "var/lib/sluice-keystore",
        "var/spool/sluice",
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    // What the Secrets hold.
    fs::rename(root.join("keys"), etc.join("keys")).unwrap();
    for (from, to) in [
        ("tls/server.pem", "tls/tls.crt"),
        ("tls/server.key", "tls/tls.key"),
        ("tls/ca.pem", "client-ca/ca.crt"),
        ("tls/ca.pem", "files/upstream/ca.crt"),
        ("tls/ca.pem", "files/broker/ca.crt"),
        ("operator", "operator/token.sha256"),
    ] {
        fs::copy(root.join(from), etc.join(to)).unwrap();
    }
    fs::write(etc.join("files/upstream/token"), "a token").unwrap();
    fs::write(etc.join("files/broker/url"), "amqps://sluice:secret@127.0.0.1:1/%2f").unwrap();

    // The ports in the settings are those of the Pod; here they are free ones of the loopback.
    let mut mapped = settings.clone();
    for (name, port) in [("fhir", ports["fhir"]), ("admin", ports["admin"])] {
        let line = format!("{name} = \"0.0.0.0:{port}\"");
        assert!(mapped.contains(&line), "{line} in\n{settings}");
        mapped = mapped.replace(&line, &format!("{name} = \"127.0.0.1:0\""));
    }
    for folder in ["/etc/sluice/", "/var/lib/sluice/", "/var/lib/sluice-keystore/", "/var/spool/sluice"] {
        mapped = mapped.replace(&format!("\"{folder}"), &format!("\"{}{folder}", root.display()));
    }
    // Everything that the settings name is below a mount of the Pod.
    let mounts = below(&statefulset, "volumeMounts");
    for mount in [
        "/etc/sluice/sluice.toml",
        "/etc/sluice/keys",
        "/etc/sluice/tls",
        "/var/lib/sluice",
        "/var/lib/sluice-keystore",
        "/var/spool/sluice",
    ] {
        assert!(mounts.contains(&format!("mountPath: {mount}\n")), "{mount} in\n{mounts}");
    }
    let file = etc.join("sluice.toml");
    fs::write(&file, mapped).unwrap();
    let served = serve(&file);
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let probe = below(&statefulset, probe);
        // The port is named, and it is the one at which the gateway says that it answers.
        assert_eq!(scalar(&probe, "port"), "admin");
        let (status, _, body) = served.admin(&scalar(&probe, "path"), "*/*").await.unwrap();
        assert_eq!((status, &*body), (StatusCode::OK, "ok\n"), "{probe}");
    }
    // What the settings name as folders is where the data went.
    assert!(fs::read_dir(root.join("var/lib/sluice/store")).unwrap().count() > 0);
    assert!(fs::read_dir(root.join("var/lib/sluice/ledger")).unwrap().count() > 0);
    assert!(fs::read_dir(root.join("var/lib/sluice-keystore/keys")).unwrap().count() > 0);
    assert!(!root.join("var/lib/sluice/keystore").exists(), "no data key on the volume of the data");
    // The operator's token opens what is parked where its Secret is named, and nothing does where none is.
    let named = mounts.contains("mountPath: /etc/sluice/operator\n");
    let (status, _) = admin(&served, "GET", "/parked", OPERATOR).await;
    assert_eq!(status, if named { StatusCode::OK } else { StatusCode::NOT_FOUND });
    assert_eq!(named, values == "full");
    let request = http::Request::get("https://localhost/fhir/metadata").body(bytes::Bytes::new()).unwrap();
    assert_eq!(house.client(None).try_send(&served, request).await.unwrap().0, StatusCode::OK);
    assert_eq!(served.stop(), Some(0), "within the time that the Pod is given");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_that_installs_lives() {
    lives("minimal").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_can_be_set_lives() {
    lives("full").await;
}

#[test]
fn the_data_keys_have_a_volume_of_their_own() {
    for (values, sizes, class) in
        [("minimal", ["20Gi", "2Gi"], None), ("full", ["200Gi", "4Gi"], Some("short-backups"))]
    {
        let claims = below(&rendered(values, "statefulset"), "volumeClaimTemplates");
        let claims: Vec<&str> = claims.split("- metadata:").skip(1).collect();
        assert_eq!(claims.iter().map(|it| scalar(it, "name")).collect::<Vec<_>>(), ["data", "keystore"]);
        assert_eq!(claims.iter().map(|it| scalar(it, "storage")).collect::<Vec<_>>(), sizes);
        assert_eq!(class.is_some_and(|class| scalar(claims[1], "storageClassName") == class), class.is_some());
    }
}

#[test]
fn nobody_reaches_the_admin_port_who_is_not_named() {
    let least = rendered("minimal", "networkpolicy");
    assert!(least.contains("kind: NetworkPolicy") && least.contains("policyTypes: [Ingress]"), "{least}");
    assert!(least.contains("port: fhir\n") && !least.contains("port: admin"), "{least}");
    let labels = below(&least, "podSelector");
    for label in ["app.kubernetes.io/name: sluice", "app.kubernetes.io/instance: sluice"] {
        assert!(labels.contains(label) && rendered("minimal", "statefulset").contains(label), "{labels}");
    }
    let full = rendered("full", "networkpolicy");
    let (fhir, on_admin) = full.split_once("port: admin\n").unwrap();
    assert!(fhir.contains("kubernetes.io/metadata.name: integration"), "{full}");
    let from = below(on_admin, "from");
    assert_eq!(from.matches("- ").count(), 1, "one peer, of that namespace and of that name: {from}");
    assert!(from.contains("metadata.name: monitoring") && from.contains("podSelector:"), "{from}");
}

#[test]
fn a_block_of_yaml_is_read() {
    let yaml = "a:\n  - name: x\n    port: 1\nb:\n  t: |\n    one\n\n      two\nc: 3\n";
    assert_eq!(below(yaml, "t"), "one\n\n  two\n");
    assert_eq!(scalar(&below(yaml, "a"), "name"), "x");
}
