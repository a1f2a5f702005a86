//! Refreshing against the end of the session, and against the death of the server: what was recorded of each call is held
//! against what it may have been.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tenantry::rpc::v1;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, Database};
use crate::harness::{Bed, Clients, Engine, Headers, PASSWORD, Person, assert_refused, on_both_engines, unique, until};
use crate::program::{Program, serve};
use crate::rows::connect_sqlite;
use crate::session_ends::session_of;

on_both_engines! {
    no_token_outlives_the_end_of_its_session
}

/// How often the session ends under those who refresh: as often as `TENANTRY_RACE_ROUNDS` says.
fn rounds() -> usize {
    std::env::var("TENANTRY_RACE_ROUNDS").map_or(40, |rounds| rounds.parse().expect("a number"))
}

/// A refresh, as its caller saw it.
struct Call {
    sent: Instant,
    given: Option<(String, String)>,
}

/// Refreshes on and on, each time with what it was given last.
async fn refreshes(mut clients: Clients, mut token: String) -> Vec<Call> {
    let mut calls = Vec::new();
    loop {
        let sent = Instant::now();
        let asked = v1::RefreshTokenRequest { refresh_token: token.clone() };
        let given = clients.auth.refresh_token(asked).await.ok().map(|answer| {
            let tokens = answer.into_inner();
            (tokens.access_token.expect("a token").token, tokens.refresh_token.expect("a refresh token").token)
        });
        let over = given.is_none();
        if let Some((_, next)) = &given {
            token.clone_from(next);
        }
        calls.push(Call { sent, given });
        if over {
            return calls;
        }
    }
}

async fn no_token_outlives_the_end_of_its_session(t: &Bed) {
    let acme = t.tenant("acme").await;
    let keeper = t.login(&acme.owner, "").await;
    let (mut given_before, rounds, begun) = (0, rounds(), Instant::now());
    for round in 0..rounds {
        let ann = t.login(&acme.owner, "").await;
        let session_id = session_of(t, &ann).await.session_id;
        let mut callers = JoinSet::new();
        for _ in 0..7 {
            callers.spawn(refreshes(t.anonymous(), ann.refresh.clone()));
        }
        // A different moment each time: before, between and after the first answers.
        tokio::time::sleep(Duration::from_micros(700 * (round % 40) as u64)).await;
        let revoke = v1::RevokeSessionRequest { session_id, ..Default::default() };
        t.with_token(&keeper.token).auth.revoke_session(revoke).await.expect("ends it");
        let ended = Instant::now();
        let mut all = vec![(ann.token.clone(), ann.refresh.clone())];
        while let Some(calls) = callers.join_next().await {
            for call in calls.expect("no panic") {
                assert!(call.given.is_none() || call.sent < ended, "a refresh sent after the end was answered");
                all.extend(call.given);
            }
        }
        given_before += all.len() - 1;
        for (access, refresh) in all {
            let who = t.with_token(&access).auth.who_am_i(v1::WhoAmIRequest {}).await;
            assert_refused(who, tonic::Code::Unauthenticated, "CREDENTIAL_INVALID");
            crate::refresh::spent(crate::refresh::refresh(t, &refresh).await);
        }
    }
    println!("{:?}: {given_before} tokens in {rounds} rounds, {} s", t.engine, begun.elapsed().as_secs());
    assert!(given_before > rounds, "the end always came first: {given_before} tokens in {rounds} rounds");
    t.with_token(&keeper.token).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("goes on");
}

/// How many successors a person's only session has had.
async fn generation(data: &std::path::Path, database: Option<&Database>, person: &Person) -> i64 {
    let id: uuid::Uuid = person.id.parse().expect("an id");
    let sql = "select refresh_gen from session where user_id = $1";
    if let Some(database) = database {
        let mut conn = database.administrator().await;
        return sqlx::query_scalar(sql).bind(id).fetch_one(&mut conn).await.expect("a session");
    }
    let mut conn = connect_sqlite(data, true).await;
    sqlx::query_scalar(sql).bind(id).fetch_one(&mut conn).await.expect("a session")
}

async fn signs_up(server: &Program) -> Person {
    let email = format!("{}@example.com", unique("ann"));
    let asked = v1::SignUpRequest {
        email: email.clone(),
        password: PASSWORD.to_owned(),
        display_name: "Ann".to_owned(),
        ..Default::default()
    };
    let done = server.clients(Headers::default()).auth.sign_up(asked).await.expect("signs up").into_inner();
    Person {
        id: done.user.expect("a user").user_id,
        email,
        token: done.access_token.expect("a token").token,
        refresh: done.refresh_token.expect("a refresh token").token,
    }
}

async fn successor(server: &Program, token: &str) -> Option<String> {
    let asked = v1::RefreshTokenRequest { refresh_token: token.to_owned() };
    let answer = server.clients(Headers::default()).auth.refresh_token(asked).await.ok()?;
    answer.into_inner().refresh_token.map(|token| token.token)
}

/// The server dies once the exchange is committed and, in turn, at any moment: whoever asks again within the window is
/// given the one successor that there is.
async fn an_answer_that_died_with_the_server_is_given_again(engine: Engine) {
    let temp = tempfile::tempdir().expect("a directory");
    let data = temp.path().join("data");
    let database = match engine {
        Engine::Sqlite => None,
        Engine::Postgres => Some(Cluster::shared().fresh_database().await),
    };
    for round in 0..4_u64 {
        let server = Arc::new(Program::start(&data, serve(&data, database.as_ref())));
        let ann = signs_up(&server).await;
        let call = tokio::spawn({
            let (server, token) = (server.clone(), ann.refresh.clone());
            async move { successor(&server, &token).await }
        });
        if round % 2 == 0 {
            until("it is committed", async || generation(&data, database.as_ref(), &ann).await == 1).await;
        } else {
            tokio::time::sleep(Duration::from_millis(round * 2)).await;
        }
        server.signal("KILL");
        let first = call.await.expect("no panic");
        drop(server);
        let server = Program::start(&data, serve(&data, database.as_ref()));
        let again = successor(&server, &ann.refresh).await.expect("is given again");
        assert!(first.is_none_or(|first| first == again), "two successors");
        assert_eq!(generation(&data, database.as_ref(), &ann).await, 1, "{engine:?}, round {round}");
        successor(&server, &again).await.expect("is good");
        assert_eq!(server.terminate().0, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_died_with_the_server_is_given_again_on_sqlite() {
    an_answer_that_died_with_the_server_is_given_again(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_died_with_the_server_is_given_again_on_postgres() {
    an_answer_that_died_with_the_server_is_given_again(Engine::Postgres).await;
}
