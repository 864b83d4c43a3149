"""Driving an update of the app layer through the local Supervisor."""
