//! The ledger: one suite for every kind, and what the embedded kind must survive.

mod conformance;
mod kill;
mod model;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use sluice::ledger::{
    Anchor, Approval, Device, DeviceKind, Embedded, FiledBy, Institution, Ledger, Name, Operation, Options, Origin,
    Outcome, Pseudonym, PublicKey, Role, SignFailed, SignedOp, Signer, Standing, SubjectRecord, SubjectState, Ticket,
    Timestamp, Trust,
};

enum Key {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl Key {
    fn ed25519(seed: u8) -> Arc<Self> {
        Arc::new(Self::Ed25519(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()))
    }

    fn p256() -> Arc<Self> {
        Arc::new(Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()))
    }
}

impl Signer for Key {
    fn public_key(&self) -> PublicKey {
        match self {
            Self::Ed25519(pair) => PublicKey::Ed25519(pair.public_key().as_ref().try_into().unwrap()),
            Self::P256(pair) => {
                // SEC 1 §2.3.3: 04 || x || y becomes (02 or 03 by y's last bit) || x.
                let point = pair.public_key().as_ref();
                let mut compressed = [0; 33];
                compressed[0] = 2 + (point[64] & 1);
                compressed[1..].copy_from_slice(&point[1..33]);
                PublicKey::P256(compressed)
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignFailed> {
        Ok(match self {
            Self::Ed25519(pair) => pair.sign(message).as_ref().try_into().unwrap(),
            Self::P256(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().try_into().unwrap(),
        })
    }
}

/// The consortium of every test: two hospitals that attest, an insurer that does not.
struct World {
    ledger: Origin,
    administrator: Arc<Key>,
    trust: Arc<Key>,
    hospital: House,
    clinic: House,
    insurer: House,
}

struct House {
    id: Name,
    master: Arc<Key>,
    practitioner: Arc<Key>,
    gateway: Arc<Key>,
    expired: Arc<Key>,
    role: Role,
    attests: bool,
}

impl World {
    fn new() -> Self {
        let house = |id: &str, seed: u8, role, attests| House {
            id: Name::parse(id).unwrap(),
            master: Key::ed25519(seed),
            practitioner: Key::p256(),
            gateway: Key::ed25519(seed + 1),
            expired: Key::ed25519(seed + 2),
            role,
            attests,
        };
        Self {
            ledger: Origin::parse("consortium.example/ledger").unwrap(),
            administrator: Key::ed25519(1),
            trust: Key::ed25519(2),
            hospital: house("hospital.example", 10, Role::Hospital, true),
            clinic: house("clinic.example", 20, Role::Hospital, true),
            insurer: house("insurer.example", 30, Role::Insurer, false),
        }
    }

    fn options(&self, dir: &Path) -> Options {
        let mut options = Options::new(dir.to_owned(), self.ledger.clone(), self.trust.clone());
        options.gateway = Some(self.hospital.gateway.clone());
        options.beat = Duration::from_millis(5);
        options
    }

    fn create(&self, dir: &Path) -> Embedded {
        let options = self.options(dir);
        Embedded::create(&options, self.administrator.public_key()).unwrap();
        Embedded::open(&options).unwrap()
    }

    fn trust(&self) -> Trust {
        let PublicKey::Ed25519(key) = self.trust.public_key() else { panic!("Ed25519") };
        Trust { ledger: self.ledger.clone(), key }
    }

    fn sign(&self, operation: Operation, signers: &[&Arc<Key>]) -> SignedOp {
        let signers: Vec<&dyn Signer> = signers.iter().map(|key| key.as_ref() as &dyn Signer).collect();
        operation.sign(&self.ledger, &signers).unwrap()
    }

    /// The institutions and their devices.
    fn members(&self) -> Vec<SignedOp> {
        let mut ops = Vec::new();
        for house in [&self.hospital, &self.clinic, &self.insurer] {
            ops.push(self.sign(Operation::Institution(house.institution(1)), &[&self.administrator]));
            for (key, kind, until) in [
                (&house.practitioner, DeviceKind::Practitioner, Timestamp::MAX),
                (&house.gateway, DeviceKind::Gateway, Timestamp::MAX),
                (&house.expired, DeviceKind::Practitioner, Timestamp(1)),
            ] {
                let device = house.device(key, kind, 1, until);
                ops.push(self.sign(Operation::Device(device), &[&house.master]));
            }
        }
        ops
    }
}

impl House {
    fn institution(&self, version: u64) -> Institution {
        Institution {
            id: self.id.clone(),
            version,
            standing: Standing::Admitted,
            roles: vec![self.role],
            attests: self.attests,
            master: self.master.public_key(),
        }
    }

    fn device(&self, key: &Key, kind: DeviceKind, version: u64, until: Timestamp) -> Device {
        Device {
            key: key.public_key(),
            institution: self.id.clone(),
            version,
            kind,
            approval: Approval::Approved,
            valid_from: Timestamp(0),
            valid_until: until,
        }
    }
}

/// A pseudonym that no other test uses.
fn fresh() -> Pseudonym {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    pseudonym(NEXT.fetch_add(1, Ordering::Relaxed))
}

fn pseudonym(n: u64) -> Pseudonym {
    Pseudonym(sluice::ledger::root::SlotKey::new(&[9; 32]).slot(&n.to_string(), "").0)
}

/// A record without keys, filed by a house.
fn attested(subject: Pseudonym, version: u64, house: &House) -> SubjectRecord {
    SubjectRecord {
        pseudonym: subject,
        version,
        state: SubjectState::Active,
        consent_root: [u8::try_from(version % 251).unwrap(); 32],
        keys: Vec::new(),
        filed_by: FiledBy::Attested(house.id.clone()),
    }
}

/// A record with keys, filed by the patient.
fn bound(subject: Pseudonym, version: u64, keys: &[&Arc<Key>]) -> SubjectRecord {
    let mut keys: Vec<_> = keys.iter().map(|key| key.public_key()).collect();
    keys.sort_unstable();
    SubjectRecord {
        pseudonym: subject,
        version,
        state: SubjectState::Active,
        consent_root: [u8::try_from(version % 251).unwrap(); 32],
        keys,
        filed_by: FiledBy::Patient,
    }
}

fn anchor(origin: &str, beat: u64, size: u64, root: u8) -> Anchor {
    let origin = Origin::parse(origin).unwrap();
    Anchor { origin, beat, size, root: [root; 32], checkpoint_hash: [root; 32] }
}

async fn submit(ledger: &dyn Ledger, op: SignedOp) -> Ticket {
    ledger.submit(&[op]).await.unwrap().pop().unwrap()
}

async fn accept(ledger: &dyn Ledger, ops: &[SignedOp]) {
    for ticket in ledger.submit(ops).await.unwrap() {
        assert!(matches!(ticket.outcome, Outcome::Committed(_)), "{:?}", ticket.outcome);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("ledger")
    }
}
