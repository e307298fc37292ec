//! The default bridge as daemon.json wants it: `bip` and `mtu` take effect at each start of the engine, not at the first alone.

use super::ipam::{Family, IpamError, Subnet};
use super::ipam_config;
use super::model::MTU;
use super::{Networks, State};
use crate::error::{ApiError, ApiResult};

/// What Docker takes when none is named, in bytes.
const DEFAULT_MTU: u64 = 1500;

impl Networks {
    /// Whether the bridge has changed. Without `bip` it keeps the subnet that it has. Only before its first container may it change.
    pub(super) fn follow_bridge_options(&self, state: &mut State) -> ApiResult<bool> {
        let settings = self.inner.config.settings();
        let wanted = match settings.string("bip") {
            None => None,
            Some(bip) => {
                let subnet: Result<Subnet, IpamError> = bip.parse();
                let subnet = subnet.map_err(|error| ApiError::bad_request(error.to_string()))?;
                let gateway = bip.split('/').next().and_then(|text| text.parse().ok());
                Some((subnet, gateway))
            }
        };
        let mtu = settings.daemon_json.get("mtu").and_then(|mtu| mtu.as_u64());
        let mtu = mtu.unwrap_or(DEFAULT_MTU).to_string();
        let mut networks = state.networks.values_mut();
        let Some(bridge) = networks.find(|network| network.name == "bridge") else {
            return Ok(false);
        };
        let mut changed = bridge.options.get(MTU) != Some(&mtu);
        bridge.options.insert(MTU.to_owned(), mtu);
        let is_v4 = |subnet: &Subnet| subnet.family() == Family::V4;
        if let Some((subnet, gateway)) = wanted {
            let had = bridge
                .allocated
                .iter()
                .find(|allocation| is_v4(&allocation.subnet));
            if had.is_none_or(|had| had.subnet != subnet || had.gateway != gateway) {
                let (config, mut allocation) = ipam_config::chosen(subnet, gateway);
                allocation.configured = true;
                bridge
                    .allocated
                    .retain(|allocation| !is_v4(&allocation.subnet));
                bridge.allocated.insert(0, allocation);
                let configs = bridge.ipam.config.get_or_insert_default();
                configs.retain(|config| !config.subnet.parse().is_ok_and(|s| is_v4(&s)));
                configs.insert(0, config);
                changed = true;
            }
        }
        Ok(changed)
    }
}
