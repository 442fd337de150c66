//! The rules of money, by examples from the contract.
