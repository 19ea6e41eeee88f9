
nobodynear