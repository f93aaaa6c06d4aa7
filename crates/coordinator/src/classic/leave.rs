//! LeaveGroup, by the members themselves or by an administrator.

use super::{ClassicGroup, ClassicState, Turn};
use crate::error::GroupError;
use crate::messages::{LeavingMember, LeftMember};

impl ClassicGroup {
    /// LeaveGroup. One rebalance for all who leave.
    pub(crate) fn leave(&mut self, members: Vec<LeavingMember>, turn: &mut Turn<'_>) -> Result<Vec<LeftMember>, GroupError> {
        if self.state == ClassicState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let left: Vec<LeftMember> = members
            .into_iter()
            .map(|leaving| {
                let error = self.leave_one(&leaving, turn).err();
                leaving.left(error)
            })
            .collect();
        if left.iter().any(|member| member.error.is_none()) {
            match self.state {
                ClassicState::Stable | ClassicState::CompletingRebalance => self.prepare_rebalance("members left", turn),
                ClassicState::PreparingRebalance => self.maybe_complete_join(turn),
                ClassicState::Empty | ClassicState::Dead => {}
            }
        }
        Ok(left)
    }

    fn leave_one(&mut self, leaving: &LeavingMember, turn: &mut Turn<'_>) -> Result<(), GroupError> {
        let instance_id = leaving.group_instance_id.as_deref();
        let member_id = if leaving.member_id.is_empty() {
            // An administrator names a static member by its instance id.
            instance_id.and_then(|id| self.static_members.get(id)).cloned().ok_or(GroupError::UnknownMemberId)?
        } else {
            if !self.pending_join.contains(&leaving.member_id) {
                self.validate_member(&leaving.member_id, instance_id)?;
            }
            leaving.member_id.clone()
        };
        tracing::info!(group = ?self.id, member = ?member_id, reason = ?leaving.reason, "member leaves");
        self.remove(&member_id, turn);
        Ok(())
    }
}
