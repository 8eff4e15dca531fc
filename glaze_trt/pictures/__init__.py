"""Picture files in and out, with all that they carry; the door is `picture`. Nothing here knows of cloaks."""
