//! Paying for changes of topics (KIP-599): strict for clients that know THROTTLING_QUOTA_EXCEEDED, lenient for older ones.

use std::time::Duration;

use siltstone_metadata::MetadataError;

use crate::context::RequestContext;

/// One request's account.
pub(crate) struct MutationBill<'a> {
    ctx: &'a RequestContext,
    strict: bool,
    throttle: Duration,
}

impl<'a> MutationBill<'a> {
    /// For a request whose API knows the error from version `strict_since` on.
    pub(crate) fn new(ctx: &'a RequestContext, strict_since: i16) -> Self {
        Self { ctx, strict: ctx.api_version >= strict_since, throttle: Duration::ZERO }
    }

    /// Whether a change may be begun.
    pub(crate) fn allow(&mut self) -> Result<(), MetadataError> {
        if !self.strict {
            return Ok(());
        }
        self.mutate(0, true).map_err(|wait| {
            self.throttle = self.throttle.max(wait);
            MetadataError::QuotaExceeded
        })?;
        Ok(())
    }

    /// Pays for so many partitions that were made or deleted.
    pub(crate) fn charge(&mut self, partitions: usize) {
        // Lenient: never refused, and for strict clients the next change will be.
        if let Ok(wait) = self.mutate(partitions, false)
            && !self.strict
        {
            self.throttle = self.throttle.max(wait);
        }
    }

    /// `throttle_time_ms` of the answer.
    pub(crate) fn throttle_ms(&self) -> i32 {
        i32::try_from(self.throttle.as_millis()).unwrap_or(i32::MAX)
    }

    fn mutate(&self, partitions: usize, strict: bool) -> Result<Duration, Duration> {
        let services = &self.ctx.services;
        services.quotas.mutate(&services.metadata.image(), self.ctx.client_id.as_deref(), partitions, strict, services.now_ms())
    }
}
