//! What somebody who guesses gets out of a server that runs as it would for everybody: nothing about who has an account, no
//! more memory than is configured, and nobody kept out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tenantry::rpc::v1;
use tenantry::time::{Clock as _, SystemClock};
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::cluster::{Cluster, Database};
use crate::harness::{Clients, Engine, Headers, PASSWORD, request_id, unique, until};
use crate::links::token_of;
use crate::mfa::code_of;
use crate::passwords::from_network;
use crate::program::{Program, get, serve};

/// A server in a process, on rows that outlive it.
struct House {
    temp: tempfile::TempDir,
    database: Option<Database>,
}

impl House {
    async fn new(engine: Engine) -> Self {
        let database = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(Cluster::shared().fresh_database().await),
        };
        Self { temp: tempfile::tempdir().unwrap(), database }
    }

    fn start(&self, flags: &[(&str, &str)]) -> Program {
        let data = self.temp.path().join("data");
        let mut command = serve(&data, self.database.as_ref());
        command.envs(flags.iter().copied());
        Program::start(&data, command)
    }
}

async fn sign_up(server: &Program, email: &str) -> Result<Response<v1::SignUpResponse>, Status> {
    let request = v1::SignUpRequest {
        request_id: request_id(),
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        display_name: "Ada".to_owned(),
        ..Default::default()
    };
    server.clients(Headers::default()).auth.sign_up(request).await
}

fn login(email: &str, password: &str) -> v1::LoginRequest {
    v1::LoginRequest { email: email.to_owned(), password: password.to_owned(), ..Default::default() }
}

/// How often Argon2 ran so far.
async fn runs(server: &Program) -> u64 {
    let metrics = get(&server.http, "/metrics").await.1;
    let line = metrics.lines().find_map(|line| line.strip_prefix("tenantry_argon2_runs_total "));
    line.map_or(0, |number| number.trim().parse().expect("a number"))
}

/// Everything that shows of an answer but what is another one with each call: its id and the time.
#[derive(Debug, PartialEq)]
struct Seen {
    code: Code,
    message: String,
    details: Vec<u8>,
    body: String,
    keys: BTreeSet<String>,
}

fn seen<T: std::fmt::Debug>(answer: Result<Response<T>, Status>) -> Seen {
    let keys = |metadata: &tonic::metadata::MetadataMap| metadata.keys().map(|key| format!("{key:?}")).collect();
    match answer {
        Ok(answer) => Seen {
            code: Code::Ok,
            message: String::new(),
            details: Vec::new(),
            keys: keys(answer.metadata()),
            body: format!("{:?}", answer.into_inner()),
        },
        Err(status) => Seen {
            code: status.code(),
            message: status.message().to_owned(),
            details: status.details().to_vec(),
            body: String::new(),
            keys: keys(status.metadata()),
        },
    }
}

/// All mail to an address, once there is some.
async fn mails_to(server: &Program, address: &str) -> Vec<String> {
    let dir = server.dir.join("mail");
    let mails = || {
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let texts = entries.filter(|e| e.path().extension().is_some_and(|end| end == "eml"));
        let texts = texts.filter_map(|e| std::fs::read_to_string(e.path()).ok());
        let texts = texts.map(|text| text.replace("=\r\n", "").replace("=3D", "="));
        texts.filter(|text| text.contains(&format!("To: {address}"))).collect::<Vec<_>>()
    };
    until("mail arrives", async || !mails().is_empty()).await;
    mails()
}

/// The token of a mail to an address that speaks of something.
pub(crate) async fn mailed(server: &Program, address: &str, of: &str) -> String {
    let mail = std::cell::RefCell::new(String::new());
    until("the mail arrives", async || {
        let found = mails_to(server, address).await.into_iter().find(|mail| mail.contains(of));
        found.map(|found| mail.replace(found)).is_some()
    })
    .await;
    token_of(&mail.into_inner())
}

/// Imports an account with a hash; its address.
async fn import(server: &Program, hash: String) -> String {
    let email = format!("{}@example.com", unique("moved"));
    let user = v1::ImportUser {
        external_id: email.clone(),
        email: email.clone(),
        display_name: "Ann".to_owned(),
        password_hash: hash,
        ..Default::default()
    };
    let item = v1::ImportTenantsRequest { item: Some(v1::import_tenants_request::Item::User(user)) };
    let answers = server.operator().tenants.import_tenants(tokio_stream::iter([item])).await.expect("begins");
    assert_eq!(answers.into_inner().message().await.unwrap().unwrap().reason, "");
    email
}

/// Signs somebody up by the letter that comes; their address and access token.
async fn confirmed(server: &Program, name: &str) -> (String, String) {
    let email = format!("{}@example.com", unique(name));
    assert!(sign_up(server, &email).await.expect("a letter").into_inner().confirmation_sent);
    let token = token_of(&mails_to(server, &email).await[0]);
    let mut auth = server.clients(Headers::default()).auth;
    let confirm = v1::ConfirmSignUpRequest { token, ..Default::default() };
    let done = auth.confirm_sign_up(confirm).await.expect("signs up").into_inner();
    (email, done.access_token.expect("a token").token)
}

/// Addresses of accounts of all kinds.
async fn accounts(server: &Program) -> Vec<String> {
    let (ann, _) = confirmed(server, "ann").await;
    let (bob, token) = confirmed(server, "bob").await;
    let mut own = server.clients(Headers::default().and("authorization", &format!("Bearer {token}"))).auth;
    let user = own.who_am_i(v1::WhoAmIRequest {}).await.expect("an answer").into_inner().user.expect("a user");
    let disable = v1::DisableAccountRequest { user_id: user.user_id, ..Default::default() };
    server.operator().auth.disable_account(disable).await.expect("is disabled");
    let (cai, token) = confirmed(server, "cai").await;
    let mut own = server.clients(Headers::default().and("authorization", &format!("Bearer {token}"))).auth;
    let begun = own.begin_totp_enrollment(v1::BeginTotpEnrollmentRequest::default()).await.expect("begins");
    let code = code_of(&cai, &begun.into_inner().secret, SystemClock.now());
    own.confirm_totp(v1::ConfirmTotpRequest { code, ..Default::default() }).await.expect("has a second step");
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    vec![ann, bob, cai, import(server, hash).await, import(server, String::new()).await]
}

async fn who_has_an_account_does_not_show(engine: Engine) {
    let house = House::new(engine).await;
    let server = house.start(&[("TENANTRY_SIGN_UP", "confirm")]);
    let mut auth = server.clients(Headers::default()).auth;
    let nobody = format!("{}@example.com", unique("nobody"));
    let mut told: Vec<[(Seen, u64); 3]> = Vec::new();
    for email in [nobody].iter().chain(&accounts(&server).await) {
        let before = runs(&server).await;
        let signed_in = seen(auth.login(login(email, "not the password")).await);
        let after_login = runs(&server).await;
        let reset = v1::RequestPasswordResetRequest { email: email.clone() };
        let reset = seen(auth.request_password_reset(reset).await);
        let after_reset = runs(&server).await;
        let signed_up = seen(sign_up(&server, email).await);
        let after_sign_up = runs(&server).await;
        told.push([
            (signed_in, after_login - before),
            (reset, after_reset - after_login),
            (signed_up, after_sign_up - after_reset),
        ]);
    }
    assert_eq!(told.len(), 6);
    for (kind, of_account) in told[1..].iter().enumerate() {
        assert_eq!(*of_account, told[0], "account {kind}");
    }
    let counts: Vec<u64> = told[0].iter().map(|(_, runs)| *runs).collect();
    assert_eq!(counts, [1, 0, 1], "Argon2 runs of a sign-in, a reset that is asked for, a sign-up");
    server.terminate();
}

/// What an unconcerned caller waits for answers, in milliseconds, sorted.
async fn others(mut owner: Clients, over: Arc<AtomicBool>) -> Vec<f64> {
    let mut took = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let begun = Instant::now();
        if owner.auth.who_am_i(v1::WhoAmIRequest {}).await.is_err() {
            println!("an unconcerned call was not answered after {} ms", begun.elapsed().as_millis());
        }
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took.sort_by(f64::total_cmp);
    took
}

/// A reason, and how long to wait before the next attempt.
fn refused(status: &Status) -> (String, Duration) {
    let details = status.get_error_details();
    let wait = details.retry_info().and_then(|info| info.retry_delay).unwrap_or_default();
    (details.error_info().map(|info| info.reason.clone()).unwrap_or_default(), wait)
}

async fn a_flood_of_guesses_keeps_nobody_out(engine: Engine) {
    const PERMITS: u64 = 2;
    let house = House::new(engine).await;
    let flags = [
        ("TENANTRY_ARGON2_PERMITS", "2"),
        // So that the flood is beyond the total, and a wait is short enough for a test.
        ("TENANTRY_SIGN_IN_ATTEMPTS", "5"),
        ("TENANTRY_SIGN_IN_ATTEMPTS_TOTAL", "20"),
    ];
    let server = house.start(&flags);
    let ann = format!("{}@example.com", unique("ann"));
    let done = sign_up(&server, &ann).await.expect("signs up").into_inner();
    let token = done.access_token.unwrap().token;
    let owner = server.clients(Headers::default().and("authorization", &format!("Bearer {token}")));
    let known = from_network(&server.grpc, 200).auth.login(login(&ann, PASSWORD)).await.expect("signs in").into_inner();
    let calm = server.memory();

    // 200 at once, again and again, from eight networks, for as long as the victim needs.
    let over = Arc::new(AtomicBool::new(false));
    let mut flood = JoinSet::new();
    for n in 0..200_u8 {
        let (address, email, over) = (server.grpc.clone(), ann.clone(), over.clone());
        flood.spawn(async move {
            let mut clients = from_network(&address, 10 + n % 8);
            let mut told = BTreeSet::new();
            let mut calls = 0_usize;
            while !over.load(Ordering::SeqCst) {
                let status = clients.auth.login(login(&email, "not the password")).await.expect_err("a refusal");
                told.insert(refused(&status).0);
                calls += 1;
                // 200 are under way at first; from then on as many as the machine of a test can answer besides.
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            (told, calls)
        });
    }
    let unconcerned = tokio::spawn(others(owner, over.clone()));
    let watched = {
        let (status, over) = (format!("/proc/{}/status", server.id()), over.clone());
        tokio::spawn(async move {
            let mut most = 0;
            while !over.load(Ordering::SeqCst) {
                let text = std::fs::read_to_string(&status).unwrap_or_default();
                let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
                most = most.max(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            most
        })
    };
    tokio::time::sleep(Duration::from_millis(1500)).await;

    // From a known device at once.
    let with = v1::LoginRequest { device_token: known.device_token, ..login(&ann, PASSWORD) };
    let begun = Instant::now();
    let mut on_device = from_network(&server.grpc, 11).auth;
    loop {
        match on_device.login(with.clone()).await {
            Ok(_) => break,
            // The machine of a test may have too few connections for so many; that is not what is asked here.
            Err(status) if refused(&status).0 == "DATABASE_UNAVAILABLE" => {}
            Err(status) => panic!("from a known device she comes in at once: {status:?}"),
        }
    }
    let from_known = begun.elapsed();
    // From a new place within three attempts that wait as long as they are told to.
    let mut attempts = 0;
    loop {
        attempts += 1;
        match from_network(&server.grpc, 201).auth.login(login(&ann, PASSWORD)).await {
            Ok(_) => break,
            Err(status) => {
                let (reason, wait) = refused(&status);
                if reason == "DATABASE_UNAVAILABLE" {
                    attempts -= 1;
                }
                assert!(attempts < 3, "after three attempts still {reason}");
                tokio::time::sleep(wait).await;
            }
        }
    }
    over.store(true, Ordering::SeqCst);
    let took = unconcerned.await.unwrap();
    let p99 = took[took.len() * 99 / 100];
    let most = watched.await.unwrap();
    let (mut reasons, mut calls) = (BTreeSet::new(), 0);
    for (told, count) in flood.join_all().await {
        reasons.extend(told);
        calls += count;
    }
    println!(
        "{engine:?}: {calls} guesses; from a known device in {} ms, from a new place at attempt {attempts}; others p50 {:.1} \
         ms, p99 {p99:.1} ms; memory {calm} KiB before, {most} KiB at most",
        from_known.as_millis(),
        took[took.len() / 2],
    );
    let known = ["PASSWORD_WRONG", "TOO_MANY_ATTEMPTS", "OVERLOADED", "DATABASE_UNAVAILABLE"];
    assert!(reasons.iter().all(|reason| known.contains(&reason.as_str())), "{reasons:?}");
    assert!(reasons.contains("TOO_MANY_ATTEMPTS"));
    // Argon2's own bound, and a mebibyte for each of 200 connections to a debug build; 200 hashes at once would need 3.7 GiB.
    let bound = calm + PERMITS * 19_456 + 200 * 1024;
    assert!(most < bound, "{most} KiB are more than {bound} KiB");
    server.terminate();
}

async fn a_reset_that_is_killed_happens_or_does_not(engine: Engine) {
    const NEW: &str = "another passphrase entirely";
    let house = House::new(engine).await;
    let mut server = house.start(&[]);
    let people: Vec<String> = (0..6).map(|n| format!("{}@example.com", unique(&format!("p{n}")))).collect();
    for email in &people {
        sign_up(&server, email).await.expect("signs up");
    }
    for (n, email) in people.iter().enumerate() {
        let request = v1::RequestPasswordResetRequest { email: email.clone() };
        server.clients(Headers::default()).auth.request_password_reset(request).await.expect("a letter");
        let token = token_of(&mails_to(&server, email).await[0]);
        let reset = v1::ResetPasswordRequest { token, new_password: NEW.to_owned() };
        let mut auth = server.clients(Headers::default()).auth;
        let asked = reset.clone();
        let under_way = tokio::spawn(async move { auth.reset_password(asked).await });
        // Somewhere between its first step and its answer.
        tokio::time::sleep(Duration::from_millis(15 * u64::try_from(n).unwrap())).await;
        server.kill();
        let acknowledged = under_way.await.unwrap().is_ok();
        server = house.start(&[]);
        let mut auth = server.clients(Headers::default()).auth;
        let (old, new) = (auth.clone().login(login(email, PASSWORD)).await, auth.login(login(email, NEW)).await);
        assert!(old.is_ok() != new.is_ok(), "one of the two passwords is the account's");
        assert!(new.is_ok() || !acknowledged, "what was acknowledged has happened");
        let again = auth.reset_password(reset).await;
        assert_eq!(again.is_ok(), old.is_ok(), "the link is good for as long as nothing has happened");
        auth.login(login(email, NEW)).await.expect("now it is the new one");
    }
    server.terminate();
}

/// The first answer, whichever of many gave it, does not depend on who asked.
async fn right_passwords_at_once_are_all_let_in(engine: Engine) {
    let house = House::new(engine).await;
    let server = house.start(&[("TENANTRY_ARGON2_PERMITS", "8")]);
    let ann = format!("{}@example.com", unique("ann"));
    sign_up(&server, &ann).await.expect("signs up");
    let logins = (0..8).map(|_| {
        let mut auth = server.clients(Headers::default()).auth;
        let ann = ann.clone();
        async move { auth.login(login(&ann, PASSWORD)).await }
    });
    for done in join_all(logins).await {
        done.expect("signs in");
    }
    server.terminate();
}

macro_rules! in_processes {
    ($($test:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Engine::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Engine::Postgres).await;
            })*
        }
    };
}

in_processes! {
    who_has_an_account_does_not_show
    a_flood_of_guesses_keeps_nobody_out
    a_reset_that_is_killed_happens_or_does_not
    right_passwords_at_once_are_all_let_in
}
