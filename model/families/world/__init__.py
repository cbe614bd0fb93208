"""The world family: Gated DeltaNet, gated attention, experts, the Eisenhower context layer, two heads."""
