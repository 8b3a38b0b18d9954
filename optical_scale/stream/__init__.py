"""Which sample comes next, and how samples become batches.

Read in this order: :mod:`~optical_scale.stream.order` (the k-th sample of one source), then
:mod:`~optical_scale.stream.mixing` (which source supplies the g-th pair) and
:mod:`~optical_scale.stream.curriculum` (mixtures that change), :mod:`~optical_scale.stream.buckets` and
:mod:`~optical_scale.stream.plan` (which pairs form a step and who gets them), :mod:`~optical_scale.stream.collate`
(samples to tensors), :mod:`~optical_scale.stream.tokens` (token ids made beforehand),
:mod:`~optical_scale.stream.faults` (samples that cannot be used),
:mod:`~optical_scale.stream.cursor` (what is saved), :mod:`~optical_scale.stream.strand` (one kind of batch),
:mod:`~optical_scale.stream.ahead` (the next step while this one is computed) and :mod:`~optical_scale.stream.loader`
(all of it together).

Everything up to the plan is a pure function of a few integers. Resuming is therefore not a replay: the position is a
number, and the batch at that number is computed the same way whether the run was interrupted or not.
"""
