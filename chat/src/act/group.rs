//! `/group …`: changes of a group, done when the log has them.

use serde_json::json;

use super::{Chat, gid};
use crate::{
    line::GroupCommand,
    screen::{Tone, one_line},
};

impl Chat {
    pub(super) async fn group(&mut self, change: GroupCommand) -> anyhow::Result<()> {
        if let GroupCommand::New { name, users } = change {
            let users = self.users(&users).await?;
            let thread = self.client.create_group(&name, &users, None).await?;
            self.names.learn_group(thread.clone(), &name);
            self.enter(thread).await;
            return Ok(());
        }
        let thread = self.here()?;
        let gid = gid(&thread)?;
        match change {
            GroupCommand::New { .. } => {}
            GroupCommand::Add(names) => {
                let users = self.users(&names).await?;
                self.client.add_members(gid, &users).await?;
            }
            GroupCommand::Remove(names) => {
                for user in self.users(&names).await? {
                    self.client.remove_member(gid, &user).await?;
                }
            }
            GroupCommand::Leave => self.client.leave_group(gid).await?,
            GroupCommand::Rename(name) => self.client.rename_group(gid, &name).await?,
            GroupCommand::Role(name, role) => {
                let user = self.user(&name).await?.user;
                self.client.set_role(gid, &user, role).await?;
            }
            GroupCommand::Info => {
                let info = self.client.group(gid).await?;
                self.names.learn_group(thread.clone(), &info.name);
                let mut lines = vec![format!("#{} ({gid})", one_line(&info.name))];
                for member in &info.members {
                    let name = self.names.user(&self.client, &member.user).await;
                    lines.push(format!("  {name} {}", format!("{:?}", member.role).to_lowercase()));
                }
                let members: Vec<_> = info.members.iter().map(|m| json!({ "user": m.user, "role": m.role })).collect();
                self.list(
                    "group",
                    lines.into_iter(),
                    json!({ "thread": thread, "name": info.name, "members": members }),
                    "",
                );
                return Ok(());
            }
        }
        self.screen.say(Tone::Good, "group_changed", Some("done".into()), json!({ "thread": thread }));
        Ok(())
    }
}
