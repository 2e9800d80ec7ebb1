from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("async_signals", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Pause",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(choices=[("signal", "Signal"), ("queue", "Queue")], max_length=10)),
                ("name", models.CharField(max_length=255)),
                ("reason", models.CharField(blank=True, max_length=255)),
                ("by", models.CharField(blank=True, max_length=255)),
                ("at", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("kind", "name"), name="async_signals_one_pause")],
            },
        ),
    ]
