//! After the faults: everything heals, what is left can be consumed to the last unit at any server, and then nothing can.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tenantry::rpc::v1;
use tenantry::rpc::v1::usage_service_client::UsageServiceClient;
use uuid::Uuid;

use crate::calls::{Patience, ask};
use crate::clients::Client;
use crate::fleet::{Fleet, SERVERS};
use crate::record::{Attempt, Call, METRICS, Told, What};
use crate::rows::{Account, accounts};

/// How long healing may take: the time until a server counts as dead, several times over.
const HEALS: Duration = Duration::from_secs(20);

/// How long a server may still be at work on what its caller gave up on.
const LATE: Duration = Duration::from_secs(6);

/// So many units are consumed one by one.
const SINGLY: i64 = 9;

/// Waits until no lease is left of a server that is gone, and no reservation whose time is over.
pub(crate) async fn healed(fleet: &Fleet, tenants: &[String]) -> Result<(), String> {
    let tenants: Vec<Uuid> = tenants.iter().map(|id| id.parse().expect("an id")).collect();
    let mut admin = fleet.administrator().await;
    let begun = Instant::now();
    loop {
        let lanes = lanes(&mut admin).await;
        let due: i64 = sqlx::query_scalar(
            "select count(*) from quota_hold
             where tenant_id = any ($1) and state = 1 and expires_at < now() + interval '1 minute'",
        )
        .bind(&tenants)
        .fetch_one(&mut admin)
        .await
        .expect("counts");
        if lanes == i64::try_from(2 * SERVERS).unwrap_or(0) && due == 0 {
            return Ok(());
        }
        if begun.elapsed() > HEALS {
            return Err(format!("HEALS: {lanes} lanes are entered for {SERVERS} servers, and {due} holds are overdue"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn lanes(admin: &mut PgConnection) -> i64 {
    sqlx::query_scalar("select count(*) from quota_writer").fetch_one(admin).await.expect("counts")
}

impl Client {
    /// Consumes all that is left of each metric, and finds nothing left then at any server. Gives what it asked, and what was
    /// wrong.
    pub(crate) async fn drain(mut self) -> (Vec<Call>, Vec<String>) {
        let mut admin = self.fleet.administrator().await;
        let mut wrong = Vec::new();
        for metric in METRICS {
            wrong.extend(self.drain_metric(&mut admin, metric).await.err());
        }
        (self.calls, wrong)
    }

    async fn drain_metric(&mut self, admin: &mut PgConnection, metric: &'static str) -> Result<(), String> {
        // Most of it at once; units that others have leased come back for that.
        for server in 0..SERVERS {
            let left = left(&self.account(admin, metric).await) - SINGLY;
            if left > 0 {
                self.take(server, metric, left).await?;
            }
        }
        // What a client gave up on may still be given back: then there is more to be had, for a while.
        let begun = Instant::now();
        loop {
            let (mut server, mut refused) = (0, 0);
            // Refused once, refused everywhere.
            while refused < SERVERS {
                if !self.take(server, metric, 1).await? {
                    refused += 1;
                }
                server = (server + 1) % SERVERS;
                if begun.elapsed() > 2 * HEALS {
                    return Err(format!("DRAIN: there is no end of {metric} of {}", self.tenant));
                }
            }
            let account = self.account(admin, metric).await;
            let (of, left) = (&self.tenant, left(&account));
            if left == 0 {
                return Ok(());
            }
            if begun.elapsed() > LATE {
                return Err(format!("DRAIN: {metric} of {of} are refused, and {left} are left: {account:?}"));
            }
        }
    }

    async fn account(&self, admin: &mut PgConnection, metric: &str) -> Account {
        let tenant = self.tenant.parse().expect("an id");
        let all = accounts(admin, tenant).await.expect("reads");
        all.into_iter().find(|account| account.metric == metric).unwrap_or_default()
    }

    /// Consumes so much, repeated until somebody decides. Gives whether it was admitted.
    async fn take(&mut self, server: usize, metric: &'static str, amount: i64) -> Result<bool, String> {
        let what = What::Consume { amounts: [(metric, amount)].into(), leased: false, keyed: true };
        let mut call = self.begin(what);
        let patience = Patience { at_most: Duration::from_secs(6), is_told: false };
        let begun = Instant::now();
        loop {
            let attempt = ask(&self.fleet, server, &self.tenant, &call.key, &call.what, patience).await;
            let decided = !matches!(attempt.told, Told::Unknown(_));
            let (yes, no) = (attempt.is_yes(), attempt.is_no());
            call.attempts.push(attempt);
            if decided {
                let told = call.tell();
                self.calls.push(call);
                return if yes || no { Ok(yes) } else { Err(format!("DRAIN: an odd answer: {told}")) };
            }
            if begun.elapsed() > HEALS {
                return Err(format!("DRAIN: nobody decides: {}", call.tell()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What is there to be consumed.
const fn left(account: &Account) -> i64 {
    account.limit_value - account.used() - account.reserved - account.forfeited
}

/// Whether the books of a tenant agree, as the server itself proves them.
pub(crate) async fn books(fleet: &Arc<Fleet>, tenant: &str) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        match verified(fleet, tenant).await {
            Ok(findings) if findings.is_empty() => return Ok(()),
            Ok(findings) => return Err(format!("BOOKS: of {tenant} they do not agree: {findings:?}")),
            Err(status) if begun.elapsed() > HEALS => return Err(format!("BOOKS: of {tenant}: {status}")),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn verified(fleet: &Fleet, tenant: &str) -> Result<Vec<v1::UsageFinding>, tonic::Status> {
    let mut client = UsageServiceClient::new(fleet.line(0).channel);
    let asked = v1::VerifyUsageRequest { tenant: tenant.to_owned() };
    let mut told = client.verify_usage(fleet.by_operator(asked)).await?.into_inner();
    let mut findings = Vec::new();
    while let Some(one) = told.message().await? {
        findings.extend(one.findings);
    }
    Ok(findings)
}

/// Whether some promise of a call is not written yet.
pub(crate) fn is_unwritten(fleet: &Fleet, call: &Call, is_there: bool) -> bool {
    let lives = |attempt: &Attempt| attempt.is_promise() && fleet.death(attempt.server, attempt.life).is_none();
    !is_there && call.attempts.iter().any(lives)
}
