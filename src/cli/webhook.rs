//! `tenantry webhook`: where a tenant's events are sent, and what came of it.

use std::io::Write;

use clap::{ArgGroup, Args, Subcommand};

use super::confirm::Confirm;
use super::connect::{Connect, Tenants, repeatable};
use super::output::{Output, once, present, sheet, time, word};
use super::pages::Pages;
use super::table::plain;
use super::{CliError, request_id};
use crate::rpc::v1::{
    CreateWebhookRequest, DeleteWebhookRequest, EventTypes, ListWebhookDeliveriesRequest, ListWebhooksRequest,
    RotateWebhookSecretRequest, TestWebhookRequest, UpdateWebhookRequest, Webhook as Row, WebhookDelivery,
    WebhookDeliveryStatus, WebhookStatus,
};

/// Flags of `tenantry webhook`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry webhook add acme https://hooks.acme.example/in --event member.added --event member.removed
  tenantry webhook test acme WEBHOOK
  tenantry webhook deliveries acme WEBHOOK --limit 20
  tenantry webhook update acme WEBHOOK --enabled true      a dead one is sent events again")]
pub(super) struct Webhook {
    #[command(subcommand)]
    action: Action,

    /// Print JSON, for scripts: one object a line
    #[arg(long, global = true)]
    json: bool,

    #[command(flatten)]
    connect: Connect,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List the webhooks of a tenant, oldest first
    List {
        /// Slug or id
        tenant: String,
    },
    /// Show the types of events that there are
    Events {
        /// Slug or id
        tenant: String,
    },
    /// Add a webhook, and print the secret that signs its events, once
    Add {
        /// Slug or id
        tenant: String,
        /// Where events go: https
        url: String,
        /// A type of events that is sent, as `events` shows them, all unless said; may be said again
        #[arg(long = "event", value_name = "TYPE")]
        events: Vec<String>,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        description: String,
    },
    /// Change a webhook; what is not said stays
    Update(Update),
    /// Send an event to it now
    Test(Which),
    /// List what was sent to it, and is to be sent, newest first
    Deliveries {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        pages: Pages,
    },
    /// Give it another secret, and print it once; for a day the old one signs as well
    Rotate(Which),
    /// Remove a webhook: nothing is sent any more
    Remove {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        confirm: Confirm,
    },
}

#[derive(Args, Debug)]
struct Which {
    /// Slug or id
    tenant: String,
    /// The webhook's id
    webhook: String,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
struct Update {
    #[command(flatten)]
    which: Which,
    /// Where events go: https
    #[arg(long, group = "change")]
    url: Option<String>,
    /// All types of events that are sent then; may be said again
    #[arg(long = "event", value_name = "TYPE", group = "change")]
    events: Vec<String>,
    /// Send all types of events
    #[arg(long, conflicts_with = "events", group = "change")]
    all_events: bool,
    /// What it is for
    #[arg(long, value_name = "TEXT", group = "change")]
    description: Option<String>,
    /// Whether events are sent
    #[arg(long, value_name = "true|false", group = "change")]
    enabled: Option<bool>,
    /// The etag that was read; refused when the webhook has changed since
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
}

impl Webhook {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        if let Action::Remove { confirm, .. } = &self.action {
            confirm.possible()?;
        }
        let mut client = self.connect.tenants().await?;
        let mut out = Output { json: self.json, to: out };
        let request_id = request_id();
        match self.action {
            Action::List { tenant } => {
                let rows = client.list_webhooks(ListWebhooksRequest { tenant }).await?.into_inner().webhooks;
                let header = ["webhook", "url", "events", "status", "problem", "description"];
                out.many("Webhook", &rows, header, cells)
            }
            Action::Events { tenant } => {
                let answer = client.list_webhooks(ListWebhooksRequest { tenant }).await?.into_inner();
                out.one("ListWebhooksResponse", &answer, |answer| answer.event_types.join("\n"))
            }
            Action::Add { tenant, url, events: event_types, description } => {
                let request = CreateWebhookRequest { tenant, request_id, url, description, event_types };
                let answer = repeatable!(client.create_webhook(request))?;
                let row = present(answer.webhook.clone())?;
                out.one("CreateWebhookResponse", &answer, |answer| once(&facts(&row), "Its secret", &answer.secret))
            }
            Action::Update(update) => {
                let row = update.run(client).await?;
                out.one("Webhook", &row, facts)
            }
            Action::Test(Which { tenant, webhook: webhook_id }) => {
                let request = TestWebhookRequest { tenant, request_id, webhook_id };
                let row = present(repeatable!(client.test_webhook(request))?.delivery)?;
                out.one("WebhookDelivery", &row, |row| {
                    format!("An event is on its way: {}. `deliveries` shows what comes of it.", plain(&row.delivery_id))
                })
            }
            Action::Deliveries { which, pages } => which.deliveries(client, pages, out).await,
            Action::Rotate(Which { tenant, webhook: webhook_id }) => {
                let request = RotateWebhookSecretRequest { tenant, request_id, webhook_id };
                let answer = repeatable!(client.rotate_webhook_secret(request))?;
                let row = present(answer.webhook.clone())?;
                out.one("RotateWebhookSecretResponse", &answer, |answer| {
                    once(&facts(&row), "Its new secret", &answer.secret)
                })
            }
            Action::Remove { which: Which { tenant, webhook: webhook_id }, confirm } => {
                confirm.agree(&format!("Remove the webhook {webhook_id}?"))?;
                let request = DeleteWebhookRequest { tenant, request_id, webhook_id };
                let answer = repeatable!(client.delete_webhook(request))?;
                out.one("DeleteWebhookResponse", &answer, |_| "Nothing is sent to it any more.".to_owned())
            }
        }
    }
}

impl Update {
    async fn run(self, client: Tenants) -> Result<Row, CliError> {
        let events = self.all_events || !self.events.is_empty();
        let request = UpdateWebhookRequest {
            tenant: self.which.tenant,
            request_id: request_id(),
            webhook_id: self.which.webhook,
            url: self.url,
            description: self.description,
            event_types: events.then_some(EventTypes { event_types: self.events }),
            enabled: self.enabled,
            etag: self.etag,
        };
        present(repeatable!(client.update_webhook(request))?.webhook)
    }
}

impl Which {
    async fn deliveries(self, client: Tenants, pages: Pages, mut out: Output<'_>) -> Result<(), CliError> {
        let columns = (["delivery", "event", "status", "tries", "answer", "happened", "next", "problem"], sent);
        let ask = async |page_size, page_token| {
            let (tenant, webhook_id) = (self.tenant.clone(), self.webhook.clone());
            let request = ListWebhookDeliveriesRequest { tenant, webhook_id, page_size, page_token };
            let page = client.clone().list_webhook_deliveries(request).await?.into_inner();
            Ok((page.deliveries, page.next_page_token))
        };
        pages.list(&mut out, "WebhookDelivery", columns, ask).await
    }
}

fn events(row: &Row) -> String {
    if row.event_types.is_empty() { "all".to_owned() } else { row.event_types.join(", ") }
}

fn status(row: &Row) -> String {
    word(row.status, "WEBHOOK_STATUS_", WebhookStatus::as_str_name)
}

fn cells(row: &Row) -> [String; 6] {
    let (id, url, problem) = (row.webhook_id.clone(), row.url.clone(), row.problem.clone());
    [id, url, events(row), status(row), problem, row.description.clone()]
}

fn sent(row: &WebhookDelivery) -> [String; 8] {
    let status = word(row.status, "WEBHOOK_DELIVERY_STATUS_", WebhookDeliveryStatus::as_str_name);
    let answer = if row.response_code == 0 { "-".to_owned() } else { row.response_code.to_string() };
    let (happened, next) = (time(row.create_time), time(row.next_attempt_time));
    let (id, event, tries) = (row.delivery_id.clone(), row.event_type.clone(), row.attempts.to_string());
    [id, event, status, tries, answer, happened, next, row.problem.clone()]
}

fn facts(row: &Row) -> String {
    sheet(&[
        ("url", row.url.clone()),
        ("events", events(row)),
        ("status", status(row)),
        ("failing since", time(row.failing_since)),
        ("problem", row.problem.clone()),
        ("for", row.description.clone()),
        ("old secret ends", time(row.old_secret_expire_time)),
        ("created", time(row.create_time)),
        ("changed", time(row.update_time)),
        ("id", row.webhook_id.clone()),
        ("etag", row.etag.clone()),
    ])
}
