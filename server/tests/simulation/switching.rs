//! Persistence turned off and on, beside everything else that goes on.
//!
//! While it is off, and until it is on again to the end, nothing new is durable: a crash takes everything back to where it
//! was turned off.

use super::tally::{Wrong, wrong};
use super::world::World;
use inflightkv_server::engine::{SwitchError, SwitchStep};

impl World {
    /// Whether changes are made durable, and nothing is about to change that.
    pub(crate) fn is_persistent(&self) -> bool {
        self.off_at.is_none() && self.run().switching.is_none()
    }

    pub(crate) fn begin_switch(&mut self, on: bool) -> Result<(), Wrong> {
        let begun = self.run().engine.switch_persistence(on);
        match begun {
            Ok(switching) => {
                self.run_mut().switching = Some((on, switching));
                Ok(())
            }
            Err(SwitchError::Running) if self.run().switching.is_some() => Ok(()),
            Err(error) => Err(wrong("turning persistence on or off", "begun", error)),
        }
    }

    /// One step of a switch that was begun.
    pub(crate) fn go_on_switching(&mut self) -> Result<(), Wrong> {
        let Some((on, mut switching)) = self.run_mut().switching.take() else {
            return Ok(());
        };
        let stepped = switching.step();
        if !on && self.off_at.is_none() {
            // Nobody wrote since the log was told to take no more.
            let reached = self.run().engine.stats().sequence.get();
            self.off_at = Some(reached);
        }
        let excused = self.disk.delivered().any() || self.disk.is_dead();
        match stepped {
            Ok(SwitchStep::Wait) => self.run_mut().switching = Some((on, switching)),
            Ok(SwitchStep::Done(report)) => {
                if report.on != on || self.run().engine.is_persistent() != on {
                    return Err(wrong(
                        "what persistence is when it was switched",
                        on,
                        report,
                    ));
                }
                let last = self.model.last();
                if on {
                    (self.off_at, self.off_in_vain) = (None, false);
                    self.tally.switched_on += 1;
                    self.model.acknowledge_to(report.sequence);
                    self.handed = self.handed.max(self.model.acknowledged);
                    // And what the log has made durable meanwhile counts from now on.
                    self.look()?;
                } else {
                    self.tally.switched_off += 1;
                    let off_at = self.off_at.unwrap_or(last);
                    if report.sequence > off_at {
                        return Err(wrong(
                            "what is durable when persistence is off",
                            format!("nothing above {off_at}"),
                            report,
                        ));
                    }
                    self.model.acknowledge_to(report.sequence);
                }
            }
            // Its snapshot may have come to the disk all the same.
            Err(SwitchError::Failed { .. }) if on && excused => self.off_in_vain = true,
            Err(SwitchError::TooOften { .. }) if on => {}
            Err(error) => {
                return Err(wrong(
                    format!(
                        "the end of turning persistence {}",
                        if on { "on" } else { "off" }
                    ),
                    "done",
                    error,
                ));
            }
        }
        Ok(())
    }
}
