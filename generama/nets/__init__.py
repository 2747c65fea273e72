"""Networks: tensors in, tensors out. They know nothing of losses, schedules, guidance or averages."""
