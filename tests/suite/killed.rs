//! Calls of several steps that are cut off by the death of the server (kill -9, a real process): afterwards there is all of
//! them or nothing, and their repetition does what is missing.

use std::time::{Duration, Instant};

use tenantry::rpc::v1;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::guessing::mailed;
use crate::harness::{Clients, Engine, Headers, PASSWORD, request_id, unique};
use crate::processes::House;
use crate::program::Program;
use crate::startup::run;

/// What must never be found, however often the server dies: a number that is not 0 says that something is half done.
const HALVES: [&str; 6] = [
    // Accepted is who is a member by it, and nobody else.
    "select count(*) from invitation i where i.status = 2 and not exists (
       select 1 from membership m where m.tenant_id = i.tenant_id and m.user_id = i.accepted_by)",
    "select count(*) from invitation i join user_account a on a.email = i.email join membership m
       on m.tenant_id = i.tenant_id and m.user_id = a.user_id where i.status = 1",
    "select count(*) from user_account a where not exists (select 1 from credential c where c.user_id = a.user_id)",
    // Every tenant has one owner here, or waits for the first.
    "select count(*) from tenant t where (select count(*) from membership m where m.tenant_id = t.tenant_id
       and m.role = 'owner' and m.status = 1) <> 1 and t.pending = 0",
    "select count(*) from tenant t where t.pending = 1 and not exists (
       select 1 from invitation i where i.tenant_id = t.tenant_id and i.opens_tenant = 1 and i.status = 1)",
    "select count(*) from tenant t where not exists (select 1 from tenant_slug s where s.tenant_id = t.tenant_id)",
];

/// A call that is repeated until it works, and then once more.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there are a few of them")]
enum Cut {
    Accept(v1::AcceptInvitationRequest),
    Transfer(String, v1::TransferOwnershipRequest),
    Provision(v1::ProvisionTenantRequest),
    /// Whose password it is, and the new one by a link.
    Reset(String, v1::ResetPasswordRequest),
}

impl Cut {
    /// Makes the call; who or what came of it.
    async fn call(&self, server: &Calls) -> Result<String, Status> {
        match self {
            Self::Accept(request) => {
                let done = server.anybody.clone().members.accept_invitation(request.clone()).await?.into_inner();
                Ok(done.member.expect("a member").membership_id)
            }
            Self::Transfer(token, request) => {
                let mut owner = server.with_token(token);
                match owner.members.transfer_ownership(request.clone()).await {
                    // Whoever has given the tenant away may not do it again, not even to hear the first answer.
                    Err(status) if status.code() != Code::PermissionDenied => Err(status),
                    _ => Ok("passed on".to_owned()),
                }
            }
            Self::Provision(request) => {
                let done = server.operator.clone().tenants.provision_tenant(request.clone()).await?.into_inner();
                Ok(done.tenant.expect("a tenant").tenant_id)
            }
            Self::Reset(email, request) => {
                match server.anybody.clone().auth.reset_password(request.clone()).await {
                    // The link is spent by what it has done, and by nothing else.
                    Err(status) if status.code() != Code::NotFound => Err(status),
                    _ => {
                        let login = v1::LoginRequest {
                            email: email.clone(),
                            password: request.new_password.clone(),
                            ..Default::default()
                        };
                        server.anybody.clone().auth.login(login).await.map(|_| "a new password".to_owned())
                    }
                }
            }
        }
    }
}

/// Clients of a server that may die under them.
#[derive(Clone)]
struct Calls {
    channel: tonic::transport::Channel,
    anybody: Clients,
    operator: Clients,
}

impl Calls {
    fn of(server: &Program) -> Self {
        let channel = server.channel();
        Self { anybody: Clients::new(channel.clone(), Headers::default()), operator: server.operator(), channel }
    }

    fn with_token(&self, token: &str) -> Clients {
        Clients::new(self.channel.clone(), Headers::default().and("authorization", &format!("Bearer {token}")))
    }
}

async fn sign_up(calls: &Calls, slug: Option<&str>) -> v1::SignUpResponse {
    let request = v1::SignUpRequest {
        email: format!("{}@example.com", unique("p")),
        password: PASSWORD.to_owned(),
        display_name: "Ada".to_owned(),
        tenant: slug.map(|slug| v1::NewTenant { display_name: slug.to_owned(), slug: slug.to_owned() }),
        ..Default::default()
    };
    calls.anybody.clone().auth.sign_up(request).await.expect("signs up").into_inner()
}

/// Calls that are ready to be made, of each kind.
async fn prepare(server: &Program, of_each: usize) -> Vec<Cut> {
    let calls = Calls::of(server);
    let mut cuts = Vec::new();
    for _ in 0..of_each {
        let owner = sign_up(&calls, Some(&unique("acme"))).await;
        let heir = sign_up(&calls, None).await.user.expect("a user");
        let token = owner.access_token.expect("a token").token;
        let tenant = owner.tenant.expect("a tenant").tenant_id;
        let add = v1::AddMemberRequest { tenant: tenant.clone(), email: heir.email, ..Default::default() };
        calls.operator.clone().members.add_member(add).await.expect("joins");
        let forgetful = sign_up(&calls, None).await.user.expect("a user").email;
        let forgot = v1::RequestPasswordResetRequest { email: forgetful.clone() };
        calls.anybody.clone().auth.request_password_reset(forgot).await.expect("a letter");
        let link = mailed(server, &forgetful, "reset").await;
        let reset = v1::ResetPasswordRequest { token: link, new_password: "another passphrase entirely".to_owned() };
        cuts.push(Cut::Reset(forgetful, reset));
        let invite = v1::InviteMemberRequest { email: format!("{}@example.com", unique("i")), ..Default::default() };
        let invited = calls.with_token(&token).members.invite_member(invite).await.expect("invites").into_inner();
        cuts.push(Cut::Accept(v1::AcceptInvitationRequest {
            token: invited.token,
            request_id: request_id(),
            display_name: "Ida".to_owned(),
            password: PASSWORD.to_owned(),
            ..Default::default()
        }));
        let transfer =
            v1::TransferOwnershipRequest { request_id: request_id(), new_owner_id: heir.user_id, ..Default::default() };
        cuts.push(Cut::Transfer(token, transfer));
        for invite_admin in [false, true] {
            cuts.push(Cut::Provision(v1::ProvisionTenantRequest {
                request_id: request_id(),
                display_name: "Globex".to_owned(),
                slug: unique("globex"),
                admin_email: format!("{}@example.com", unique("a")),
                invite_admin,
                ..Default::default()
            }));
        }
    }
    cuts
}

/// Makes all calls at once.
fn make(server: &Program, cuts: &[Cut]) -> JoinSet<(usize, Result<String, Status>)> {
    let calls = Calls::of(server);
    let mut under_way = JoinSet::new();
    for (at, cut) in cuts.iter().cloned().enumerate() {
        let calls = calls.clone();
        under_way.spawn(async move { (at, cut.call(&calls).await) });
    }
    under_way
}

/// Makes all calls again, each twice, and looks before and after.
async fn repeat(house: &House, server: &Program, cuts: Vec<Cut>, told: Vec<Option<String>>) {
    nothing_is_half_done(house).await;
    let calls = Calls::of(server);
    for (cut, told) in cuts.iter().zip(told) {
        let again = cut.call(&calls).await.expect("a repetition works");
        assert!(told.is_none_or(|told| told == again), "the first answer again");
        assert_eq!(cut.call(&calls).await.expect("once more"), again);
    }
    nothing_is_half_done(house).await;
    let waiting = house.count("select count(*) from invitation where status = 1 and opens_tenant = 0").await;
    assert_eq!(waiting, 0, "everybody has joined");
}

async fn nothing_is_half_done(house: &House) {
    for sql in HALVES {
        assert_eq!(house.count(sql).await, 0, "{sql}");
    }
}

async fn whatever_is_cut_off_is_done_wholly_or_not_at_all(engine: Engine) {
    let house = House::new(engine).await;
    let mut server = house.start();
    // The server dies when so many of the answers are there: the others are somewhere in between.
    for answers in [0, 1, 3, 6] {
        let cuts = prepare(&server, 3).await;
        let mut under_way = make(&server, &cuts);
        let mut told = vec![None; cuts.len()];
        for _ in 0..answers {
            let (at, answer) = under_way.join_next().await.expect("an answer").expect("no panic");
            told[at] = Some(answer.expect("worked"));
        }
        server.kill();
        for (at, answer) in under_way.join_all().await {
            told[at] = answer.ok();
        }
        server = house.start();
        repeat(&house, &server, cuts, told).await;
    }
}

/// Where the calls write, in what order whatsoever: dead before each of these, a server has died between any two steps.
const STEPS: [&str; 14] = [
    "idempotency",
    "user_account",
    "credential",
    "tenant",
    "tenant_slug",
    "membership_role",
    "membership",
    "invitation",
    "session",
    "mail_link",
    "outbox",
    "personal_outbox",
    "audit_event",
    "change",
];

/// PostgreSQL lets the server stand still before a step: every call that comes there waits, for the step or for another that
/// does, and then the server dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_whatever_step_it_dies_nothing_is_half_done() {
    let house = House::new(Engine::Postgres).await;
    let mut server = house.start();
    let mut admin = house.administrator().await;
    run(
        &mut admin,
        "create function stand_still() returns trigger language plpgsql as
                     'begin perform pg_sleep(4); return coalesce(new, old); end'",
    )
    .await;
    for step in STEPS {
        let cuts = prepare(&server, 1).await;
        let trigger = format!(
            "create trigger a_stop before insert or update or delete on {step} for each row execute function stand_still()"
        );
        run(&mut admin, &trigger).await;
        let mut under_way = make(&server, &cuts);
        let mut told = vec![None; cuts.len()];
        let mut open = cuts.len();
        let begun = Instant::now();
        let still = "select count(*) from pg_stat_activity where datname = current_database() and state = 'active'
                     and (wait_event = 'PgSleep' or wait_event_type = 'Lock')";
        // Those that are not answered stand still; in vain is not waited for ever.
        while usize::try_from(house.count(still).await).unwrap() < open && begun.elapsed() < Duration::from_secs(3) {
            while let Some(answer) = under_way.try_join_next() {
                let (at, answer) = answer.expect("no panic");
                told[at] = Some(answer.expect("worked"));
                open -= 1;
            }
        }
        server.kill();
        for (at, answer) in under_way.join_all().await {
            told[at] = answer.ok();
        }
        println!("{step}: {} of {} calls were cut off", told.iter().filter(|told| told.is_none()).count(), told.len());
        // What the dead server has begun does not go on.
        let end = "select pg_terminate_backend(pid) from pg_stat_activity
                   where datname = current_database() and pid <> pg_backend_pid()";
        run(&mut admin, end).await;
        run(&mut admin, &format!("drop trigger a_stop on {step}")).await;
        server = house.start();
        repeat(&house, &server, cuts, told).await;
    }
}

mod sqlite {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whatever_is_cut_off_is_done_wholly_or_not_at_all() {
        super::whatever_is_cut_off_is_done_wholly_or_not_at_all(super::Engine::Sqlite).await;
    }
}

mod postgres {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whatever_is_cut_off_is_done_wholly_or_not_at_all() {
        super::whatever_is_cut_off_is_done_wholly_or_not_at_all(super::Engine::Postgres).await;
    }
}
