"""What a run by a plain user needs beyond root's: loaded only there, so that root's run does not pay for it."""
