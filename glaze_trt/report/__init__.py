"""What is shown of finished pictures: the contact sheet and the page of a run. Nothing is measured here."""
