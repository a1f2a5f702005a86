//! gRPC. A request comes through `front.rs` (trace, deadline, limits), `gate.rs` (who, which tenant, may they), and the
//! file of its service, which only decodes, calls the use case and encodes.

use std::sync::Arc;

use tonic::service::Routes;

pub mod access;
mod auth;
mod convert;
mod fields;
pub mod front;
pub mod gate;
mod json;
mod membership;
mod page;
mod settings;
pub mod status;
pub mod stream;
mod tenant;
mod usage;

use gate::Gate;

/// The generated messages, clients and servers.
#[expect(
    clippy::allow_attributes,
    clippy::large_enum_variant,
    clippy::pedantic,
    reason = "generated; the protos carry the manual"
)]
pub mod v1 {
    tonic::include_proto!("tenantry.v1");
}

/// All descriptors, for reflection and JSON transcoders.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// What the services share.
#[derive(Clone)]
struct Services(Arc<Gate>);

/// A service, one line a method: its name, request and answer, and the file that serves it, by a function of the same
/// name. What comes out becomes a response or a status here. Methods with streams follow as they are.
macro_rules! served {
    ($service:path: $($method:ident($request:ident) -> $response:ident = $file:ident;)* $({$($streams:tt)*})?) => {
        #[tonic::async_trait]
        impl $service for Services {
            $(async fn $method(
                &self,
                request: tonic::Request<v1::$request>,
            ) -> Result<tonic::Response<v1::$response>, tonic::Status> {
                // Not by way of a function: each would move the future of the method once more, and those are large.
                let answered = $file::$method(self, request).await;
                answered.map(tonic::Response::new).map_err(|error| crate::rpc::status::status(&error))
            })*

            $($($streams)*)?
        }
    };
}
use served;

/// The four services. `max_message` bounds a request's body, in bytes.
#[must_use]
pub fn services(gate: Arc<Gate>, max_message: usize) -> Routes {
    let services = Services(gate);
    macro_rules! bounded {
        ($server:path) => {{
            use $server as server;
            server::new(services.clone()).max_decoding_message_size(max_message)
        }};
    }
    Routes::new(bounded!(v1::auth_service_server::AuthServiceServer))
        .add_service(bounded!(v1::tenant_service_server::TenantServiceServer))
        .add_service(bounded!(v1::membership_service_server::MembershipServiceServer))
        .add_service(bounded!(v1::usage_service_server::UsageServiceServer))
}
