"""The LightningModule that trains a bank of SAEs, and what is only its own."""

from saelight.bank.sae_bank import SAEBank as SAEBank
